//go:build unix

package manifest

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A pipe in a directory would be waited for without end.
func TestPipesInDirectoriesAreNotRead(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe.yaml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	_, errs := ReadFiles([]string{dir}, strings.NewReader(""))
	if len(errs) != 1 || errs[0].Error() != pipe+": this is not a regular file; remove it, or name it as an argument" {
		t.Errorf("errors %v", errs)
	}
}
