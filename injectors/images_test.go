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
	images := reflect.ValueOf(DefaultImages(""))
	for i := range images.NumField() {
		if row := "\n| `" + images.Field(i).String() + "` | "; !strings.Contains(string(content), row) {
			t.Errorf("docs/images.md has no row that begins with %q, for %s", row[1:], images.Type().Field(i).Name)
		}
	}
	if rows := strings.Count(string(content), "\n| `"); rows != images.NumField() {
		t.Errorf("docs/images.md has %d rows, and there are %d default images", rows, images.NumField())
	}
}
