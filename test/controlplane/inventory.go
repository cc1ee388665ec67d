package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// inventoryFile lists what is in a destination, beside it.
const inventoryFile = "versions.json"

// entry is what is known of one program.
type entry struct {
	// Version is what the program itself says.
	Version string `json:"version"`
	// Source is where it came from: download or build.
	Source string `json:"source"`
	// Fingerprint is that of the pin it was brought for, which a downloaded program may be near to and not at.
	Fingerprint string `json:"fingerprint"`
	// Size tells a program that was replaced or cut short from the one that was recorded.
	Size int64 `json:"size"`
}

// inventory is what a destination holds.
type inventory struct {
	dest    string
	entries map[string]entry
}

// readInventory reads the list in dest. A list that is not there, or that cannot be read as one, is an empty list: the
// programs are brought again, which is always right.
func readInventory(dest string) (*inventory, error) {
	inv := &inventory{dest: dest, entries: map[string]entry{}}
	data, err := os.ReadFile(filepath.Join(dest, inventoryFile))
	if errors.Is(err, fs.ErrNotExist) {
		return inv, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what is there already: %w", err)
	}
	if err := json.Unmarshal(data, &inv.entries); err != nil || inv.entries == nil {
		inv.entries = map[string]entry{}
	}
	return inv, nil
}

// missing picks those of the wanted components that are not there as pinned. A source other than auto also wants them
// from that source.
func (inv *inventory) missing(wanted []component, pinned pins, source string) []component {
	var missing []component
	for _, c := range wanted {
		e, recorded := inv.entries[c.name]
		file, err := os.Stat(filepath.Join(inv.dest, c.name))
		switch {
		case !recorded, e.Fingerprint != pinned.of(c).fingerprint:
		case source != sourceAuto && e.Source != source:
		case err != nil, file.Size() != e.Size, file.Mode().Perm()&0o100 == 0:
		default:
			continue
		}
		missing = append(missing, c)
	}
	return missing
}

// describe names components with their versions.
func (inv *inventory) describe(components []component) string {
	list := make([]string, len(components))
	for i, c := range components {
		list[i] = c.name + " " + inv.entries[c.name].Version
	}
	return strings.Join(list, ", ")
}

// install moves a finished program into place and records it. The list is written last, so that a run that is cut short
// between the two brings the program again.
func (inv *inventory) install(c component, tmp string, e entry) error {
	file, err := os.Stat(tmp)
	if err != nil {
		return fmt.Errorf("install %s: %w", c.name, err)
	}
	e.Size = file.Size()
	if err := os.Rename(tmp, filepath.Join(inv.dest, c.name)); err != nil {
		return fmt.Errorf("install %s: %w", c.name, err)
	}
	inv.entries[c.name] = e
	data, err := json.MarshalIndent(inv.entries, "", "  ")
	if err != nil {
		return fmt.Errorf("record %s: %w", c.name, err)
	}
	list := inv.tempName(inventoryFile)
	if err := os.WriteFile(list, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("record %s: %w", c.name, err)
	}
	if err := os.Rename(list, filepath.Join(inv.dest, inventoryFile)); err != nil {
		return fmt.Errorf("record %s: %w", c.name, err)
	}
	return nil
}

// tempName is where a file is put together. It is in the destination itself, since a rename is atomic only within one
// file system, and needs no random part, since a lock keeps others out.
func (inv *inventory) tempName(name string) string {
	return filepath.Join(inv.dest, tempPrefix+name)
}

const tempPrefix = ".unfinished-"

// removeLeftovers clears what a run that was killed could not. It is only tidiness, so errors do not matter.
func removeLeftovers(dest string) {
	files, _ := filepath.Glob(filepath.Join(dest, tempPrefix+"*"))
	for _, f := range files {
		_ = os.Remove(f)
	}
}
