package gitserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Push commits files to Branch and pushes them, and returns the commit. Other files stay as they are.
func (s *Server) Push(ctx context.Context, repo string, files map[string]string, message string) (commit string, err error) {
	return s.PushTo(ctx, repo, Branch, files, message)
}

// PushTo is Push to any branch. One that is not there yet grows from Branch.
func (s *Server) PushTo(ctx context.Context, repo, branch string, files map[string]string, message string) (string, error) {
	r, err := s.repository(repo)
	if err != nil {
		return "", err
	}
	r.pushing.Lock()
	defer r.pushing.Unlock()
	clone, err := s.clone(ctx, repo)
	if err != nil {
		return "", err
	}
	if err := s.checkOut(ctx, clone, branch); err != nil {
		return "", err
	}
	if err := write(clone, files); err != nil {
		return "", err
	}
	if _, err := s.git(ctx, clone, "add", "--all"); err != nil {
		return "", err
	}
	if _, err := s.git(ctx, clone, "commit", "--quiet", "--allow-empty", "--message="+message); err != nil {
		return "", err
	}
	if _, err := s.git(ctx, clone, "push", "--quiet", "origin", branch); err != nil {
		return "", err
	}
	return s.git(ctx, clone, "rev-parse", "HEAD")
}

// clone returns the directory that a repository is pushed from.
func (s *Server) clone(ctx context.Context, repo string) (string, error) {
	clone := filepath.Join(s.clones(), repo)
	if _, err := os.Stat(clone); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return clone, err
	}
	_, err := s.git(ctx, s.dir, "clone", "--quiet", s.bare(repo), clone)
	return clone, err
}

// checkOut makes the clone be at a branch, as it is in the repository or as it is to begin.
func (s *Server) checkOut(ctx context.Context, clone, branch string) error {
	// Others may have pushed, too.
	if _, err := s.git(ctx, clone, "fetch", "--quiet", "--prune", "origin"); err != nil {
		return err
	}
	for _, known := range []string{branch, Branch} {
		if _, err := s.git(ctx, clone, "rev-parse", "--verify", "--quiet", "origin/"+known); err == nil {
			_, err := s.git(ctx, clone, "checkout", "--quiet", "--force", "-B", branch, "origin/"+known)
			return err
		}
	}
	_, err := s.git(ctx, clone, "checkout", "--quiet", "--orphan", branch) // the first commit of all
	return err
}

func write(dir string, files map[string]string) error {
	for _, file := range slices.Sorted(maps.Keys(files)) {
		if !filepath.IsLocal(file) {
			return fmt.Errorf("%q is not in the repository", file)
		}
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(files[file]), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// environment is what git runs in: nothing of the user's own settings, and a name for commits.
func (s *Server) environment() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=Somebody", "GIT_AUTHOR_EMAIL=somebody@example.com",
		"GIT_COMMITTER_NAME=Somebody", "GIT_COMMITTER_EMAIL=somebody@example.com",
	}
}

func (s *Server) git(ctx context.Context, dir string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, "git", args...)
	command.Dir, command.Env = dir, s.environment()
	var said, complained strings.Builder
	command.Stdout, command.Stderr = &said, &complained
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(complained.String()))
	}
	return strings.TrimSpace(said.String()), nil
}
