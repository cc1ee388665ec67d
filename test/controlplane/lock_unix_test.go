//go:build unix

package main

import (
	"context"
	"errors"
	"testing"
)

func TestLockFolder(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lockFolder(t.Context(), dir, func() { t.Error("the first one waited") })
	if err != nil {
		t.Fatal(err)
	}

	// A second one waits, says so once, and stops waiting when it is told to.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	waited := 0
	if _, err := lockFolder(ctx, dir, func() { waited++; cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
	if waited != 1 {
		t.Errorf("said %d times that it waits, want once", waited)
	}

	// A third one gets the lock when the first lets go.
	unlockThird, err := lockFolder(t.Context(), dir, unlock)
	if err != nil {
		t.Fatal(err)
	}
	unlockThird()
}
