package rbac

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pillion-dev/pillion/test/apiserver"
)

// anything stands in the table for any name, and for the whole cluster.
const anything = "*"

// row is a permission of the table: every verb on every name.
type row struct {
	identity, namespace string
	verbs, names        []string
	resource            schema.GroupResource
}

// covers tells whether the row permits an access.
func (r *row) covers(a access) bool {
	return r.resource == a.resource && slices.Contains(r.verbs, a.verb) &&
		(r.names[0] == anything || slices.Contains(r.names, a.name)) &&
		(r.namespace == anything || r.namespace == a.namespace)
}

// rowsOf returns the rows of identities.
func rowsOf(rows []row, identities ...string) []row {
	return slices.DeleteFunc(slices.Clone(rows), func(r row) bool { return !slices.Contains(identities, r.identity) })
}

// readTable reads the table of docs/security.md whose header begins with "identity".
func readTable(t *testing.T) []row {
	t.Helper()
	root, err := apiserver.Root()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(root, "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	var rows []row
	inTable := false
	for line := range strings.Lines(string(content)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case cells[0] == "identity":
			inTable = true
		case len(cells) != 6:
			inTable = false
		case inTable && !strings.HasPrefix(cells[0], "-"):
			rows = append(rows, newRow(t, cells))
		}
	}
	if len(rows) < 10 {
		t.Fatalf("docs/security.md has %d rows of permissions", len(rows))
	}
	return rows
}

func newRow(t *testing.T, cells []string) row {
	t.Helper()
	group, resource, ok := strings.Cut(cells[2], "/")
	if !ok {
		t.Fatalf("%q is not written GROUP/RESOURCE", cells[2])
	}
	if group == "core" {
		group = ""
	}
	if cells[5] == "" {
		t.Errorf("the row %v gives no reason", cells)
	}
	return row{
		identity: cells[0], verbs: strings.Split(cells[1], ", "),
		resource: schema.GroupResource{Group: group, Resource: resource},
		names:    strings.Split(cells[3], ", "), namespace: cells[4],
	}
}
