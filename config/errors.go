package config

import (
	"fmt"
	"strings"
)

// Error holds all that is wrong with a configuration.
type Error struct {
	Problems []Problem
}

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	// Source is where the value stands: FILE:LINE, a variable or a flag. Empty: a default.
	Source string
	// Key is the key in the file, also where the value comes from elsewhere. Empty: the file, variable or flag as a whole.
	Key     string
	Message string
}

func (p Problem) String() string {
	var parts []string
	for _, part := range []string{p.Source, p.Key, p.Message} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ": ")
}

func (e *Error) Error() string {
	if len(e.Problems) == 1 {
		return "configuration: " + e.Problems[0].String()
	}
	lines := []string{fmt.Sprintf("configuration: %d problems:", len(e.Problems))}
	for _, problem := range e.Problems {
		lines = append(lines, "  "+problem.String())
	}
	return strings.Join(lines, "\n")
}

func asError(problems []Problem) error {
	if len(problems) == 0 {
		return nil
	}
	return &Error{Problems: problems}
}
