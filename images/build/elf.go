package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// triplets are the names that Debian gives the folders of an architecture's libraries, for the architectures that images are
// made for.
var triplets = map[string]string{
	"amd64": "x86_64-linux-gnu",
	"arm64": "aarch64-linux-gnu",
}

// missingLibraries returns an error that names every shared library, and every loader, that a program of the tree needs and
// the tree has not. Such a program would end at its start, in somebody's Pod.
func (t *tree) missingLibraries(architecture string) error {
	seen, missing := map[string]bool{}, map[string]string{}
	var check func(name string)
	check = func(name string) {
		at, err := t.follow(name)
		if err != nil || seen[at] {
			return
		}
		seen[at] = true
		e, there := t.entries[at]
		if !there || !bytes.HasPrefix(e.content, []byte(elf.ELFMAG)) {
			return
		}
		file, err := elf.NewFile(bytes.NewReader(e.content))
		if err != nil {
			missing["/"+at+" (which is damaged: "+err.Error()+")"] = "/" + at
			return
		}
		if loader := interpreter(file); loader != "" {
			if _, found := t.lookUp(loader); !found {
				missing[loader] = "/" + at
			}
		}
		libraries, err := file.ImportedLibraries()
		if err != nil {
			return // no dynamic section: it is static
		}
		for _, library := range libraries {
			if found := t.findLibrary(file, at, library, architecture); found != "" {
				check(found)
			} else if _, named := missing[library]; !named {
				missing[library] = "/" + at
			}
		}
	}
	for _, name := range t.paths() {
		if e := t.entries[name]; e.kind == tar.TypeReg && e.mode&0o111 != 0 && !strings.Contains(path.Base(name), ".so") {
			check(name)
		}
	}
	var errs []error
	for _, library := range slices.Sorted(maps.Keys(missing)) {
		errs = append(errs, fmt.Errorf("%s needs %s, which is not in the image; name the package that holds it in catalog.go",
			missing[library], library))
	}
	return errors.Join(errs...)
}

// findLibrary looks for a library where the loader would, and returns its path.
func (t *tree) findLibrary(file *elf.File, program, library, architecture string) string {
	folders := []string{"/lib/" + triplets[architecture], "/usr/lib/" + triplets[architecture], "/lib", "/usr/lib", "/lib64"}
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		values, err := file.DynString(tag)
		if err != nil {
			continue
		}
		for _, value := range values {
			for folder := range strings.SplitSeq(value, ":") {
				folders = append(folders, strings.ReplaceAll(folder, "$ORIGIN", "/"+path.Dir(program)))
			}
		}
	}
	for _, folder := range folders {
		if _, found := t.lookUp(path.Join(folder, library)); found {
			return path.Join(folder, library)
		}
	}
	return ""
}

// interpreter returns the loader that a program names, or nothing.
func interpreter(file *elf.File) string {
	for _, segment := range file.Progs {
		if segment.Type != elf.PT_INTERP {
			continue
		}
		name := make([]byte, segment.Filesz)
		if _, err := segment.ReadAt(name, 0); err != nil {
			return ""
		}
		return string(bytes.TrimRight(name, "\x00"))
	}
	return ""
}
