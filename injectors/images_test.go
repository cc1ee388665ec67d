package injectors

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

func TestTheDocumentOfImagesHasARowForEachDefaultImage(t *testing.T) {
	content, err := os.ReadFile("../docs/images.md")
	if err != nil {
		t.Fatal(err)
	}
	// The document has other tables, too.
	_, table, found := strings.Cut(string(content), "\n| default image | used by |")
	table, _, ended := strings.Cut(table, "\n\n")
	if !found || !ended {
		t.Fatal("docs/images.md has no table whose first columns are: default image, used by")
	}
	images := reflect.ValueOf(DefaultImages(""))
	for i := range images.NumField() {
		if row := "\n| `" + images.Field(i).String() + "` | "; !strings.Contains(table, row) {
			t.Errorf("docs/images.md has no row that begins with %q, for %s", row[1:], images.Type().Field(i).Name)
		}
	}
	if rows := strings.Count(table, "\n| `"); rows != images.NumField() {
		t.Errorf("docs/images.md has %d rows, and there are %d default images", rows, images.NumField())
	}
}
