package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// repository is the clone below --root, with a worktree for each revision.
type repository struct {
	settings
	environment []string
}

// published is what --link leads to after a sync.
type published struct {
	hash  string
	isNew bool
}

func newRepository(s settings) (*repository, error) {
	environment, err := gitEnvironment(s)
	if err != nil {
		return nil, err
	}
	return &repository{settings: s, environment: environment}, nil
}

// sync brings --link to what --ref is now.
func (r *repository) sync(ctx context.Context) (published, error) {
	if err := r.checkCredentials(); err != nil {
		return published{}, err
	}
	if err := r.prepare(ctx); err != nil {
		return published{}, err
	}
	hash, err := r.fetch(ctx)
	if err != nil {
		return published{}, err
	}
	current := r.current()
	if filepath.Base(current) == hash && r.isWhole(ctx, current, hash) {
		return published{hash: hash}, r.removeStale(ctx)
	}
	worktree, err := r.checkOut(ctx, hash)
	if err != nil {
		return published{}, err
	}
	if err := r.publish(worktree, current); err != nil {
		return published{}, err
	}
	return published{hash: hash, isNew: true}, r.removeStale(ctx)
}

// prepare makes the repository, unless an earlier run did: a container that is started again finds its volume as it left it.
func (r *repository) prepare(ctx context.Context) error {
	if err := os.MkdirAll(r.root, 0o755); err != nil {
		return fmt.Errorf("make --root: %w", err)
	}
	if err := r.removeLocked(); err != nil {
		return err
	}
	if _, err := r.git(ctx, r.root, "rev-parse", "--git-dir"); err == nil {
		return nil
	} else if strings.Contains(err.Error(), "dubious ownership") {
		return err // the directory is another user's, and making a repository in it would not change that
	}
	_, err := r.git(ctx, r.root, "init", "--quiet", "--initial-branch=git-sync")
	return err
}

// removeLocked empties a repository whose git was killed while it fetched, as git-sync does: git would wait for its lock for ever.
// What --link leads to goes with it.
func (r *repository) removeLocked() error {
	if _, err := os.Stat(filepath.Join(r.root, ".git", "shallow.lock")); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("look for a lock: %w", err)
	}
	entries, err := os.ReadDir(r.root)
	if err != nil {
		return fmt.Errorf("list --root: %w", err)
	}
	for _, entry := range entries {
		if err := os.RemoveAll(filepath.Join(r.root, entry.Name())); err != nil {
			return fmt.Errorf("empty --root, which is locked: %w", err)
		}
	}
	return nil
}

// fetch gets what the ref is on the server, and returns the hash of its commit.
func (r *repository) fetch(ctx context.Context) (string, error) {
	args := []string{"fetch", "--no-progress", "--no-auto-gc", "--no-recurse-submodules"}
	if r.depth > 0 {
		args = append(args, "--depth", strconv.Itoa(r.depth))
	}
	if _, err := r.git(ctx, r.root, append(args, "--", r.repo, r.ref)...); err != nil {
		return "", err
	}
	out, err := r.git(ctx, r.root, "rev-parse", "FETCH_HEAD^{commit}")
	return strings.TrimSpace(out), err
}

func (r *repository) worktrees() string { return filepath.Join(r.root, ".worktrees") }

// current returns the worktree that --link leads to, or nothing.
func (r *repository) current() string {
	target, err := os.Readlink(r.link)
	if err != nil {
		return ""
	}
	return filepath.Join(filepath.Dir(r.link), target)
}

// isWhole tells whether a worktree is at a revision. One that somebody emptied is not.
func (r *repository) isWhole(ctx context.Context, worktree, hash string) bool {
	if _, err := os.Stat(filepath.Join(worktree, ".git")); err != nil {
		return false
	}
	out, err := r.git(ctx, worktree, "rev-parse", "HEAD")
	return err == nil && strings.TrimSpace(out) == hash
}

// checkOut makes the worktree of a revision, whole, beside the others.
func (r *repository) checkOut(ctx context.Context, hash string) (string, error) {
	worktree := filepath.Join(r.worktrees(), hash)
	// What an interrupted sync left of it goes.
	if err := os.RemoveAll(worktree); err != nil {
		return "", fmt.Errorf("remove a worktree that was not finished: %w", err)
	}
	if _, err := r.git(ctx, r.root, "worktree", "prune"); err != nil {
		return "", err
	}
	if _, err := r.git(ctx, r.root, "worktree", "add", "--force", "--detach", "--no-checkout", worktree, hash); err != nil {
		return "", err
	}
	if r.sparseFile != "" {
		patterns, err := os.ReadFile(r.sparseFile)
		if err != nil {
			return "", fmt.Errorf("read --sparse-checkout-file: %w", err)
		}
		if _, err := r.gitReading(ctx, patterns, worktree, "sparse-checkout", "set", "--no-cone", "--stdin"); err != nil {
			return "", err
		}
	}
	if _, err := r.git(ctx, worktree, "reset", "--quiet", "--hard", hash, "--"); err != nil {
		return "", err
	}
	if r.submodules != submodulesOff {
		args := []string{"submodule", "--quiet", "update", "--init"}
		if r.submodules == submodulesRecursive {
			args = append(args, "--recursive")
		}
		if r.depth > 0 {
			args = append(args, "--depth", strconv.Itoa(r.depth))
		}
		if _, err := r.git(ctx, worktree, args...); err != nil {
			return "", err
		}
	}
	return worktree, nil
}

// publish turns --link to a worktree, at once: whoever opens it gets the old files or the new ones.
func (r *repository) publish(worktree, before string) error {
	folder := filepath.Dir(r.link)
	target, err := filepath.Rel(folder, worktree)
	if err != nil {
		return fmt.Errorf("find the way from --link to the files: %w", err)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("make the directory of --link: %w", err)
	}
	next := filepath.Join(folder, ".git-sync-next-"+filepath.Base(r.link))
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove a link that was not finished: %w", err)
	}
	if err := errors.Join(os.Symlink(target, next), os.Rename(next, r.link)); err != nil {
		return fmt.Errorf("publish the files: %w", err)
	}
	if before != "" && before != worktree {
		// From now on the old files are stale.
		now := time.Now()
		if err := os.Chtimes(before, now, now); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("mark the files before as stale: %w", err)
		}
	}
	return nil
}

// removeStale removes worktrees that nothing leads to any more, once processes that are still in them had their time.
func (r *repository) removeStale(ctx context.Context) error {
	entries, err := os.ReadDir(r.worktrees())
	if err != nil {
		return fmt.Errorf("list the worktrees: %w", err)
	}
	current, removed := filepath.Base(r.current()), false
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || entry.Name() == current || time.Since(info.ModTime()) < r.staleTimeout {
			continue
		}
		if err := os.RemoveAll(filepath.Join(r.worktrees(), entry.Name())); err != nil {
			return fmt.Errorf("remove a stale worktree: %w", err)
		}
		removed = true
	}
	if !removed {
		return nil
	}
	if _, err := r.git(ctx, r.root, "worktree", "prune"); err != nil {
		return err
	}
	_, err = r.git(ctx, r.root, "-c", "gc.autoDetach=false", "gc", "--auto", "--quiet")
	return err
}

func (r *repository) git(ctx context.Context, folder string, args ...string) (string, error) {
	return r.gitReading(ctx, nil, folder, args...)
}

// gitReading runs git with an input and returns what it prints. Its own words are in the error.
func (r *repository) gitReading(ctx context.Context, input []byte, folder string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir, cmd.Env, cmd.Stdin = folder, r.environment, bytes.NewReader(input)
	var out, problems strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &problems
	cmd.WaitDelay = time.Second // what git started may hold its output open
	if err := cmd.Run(); err != nil {
		words := args[0]
		if words == "-c" {
			words = args[2]
		}
		return "", fmt.Errorf("git %s: %w: %s", words, err, strings.TrimSpace(problems.String()))
	}
	return out.String(), nil
}
