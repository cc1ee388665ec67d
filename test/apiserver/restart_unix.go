//go:build unix

package apiserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// RestartAPIServer kills kube-apiserver, as a crash does, and starts it again at the same address, over what etcd holds. It returns
// once the server is healthy. during, if it is not nil, is called while there is none.
func (s *Server) RestartAPIServer(ctx context.Context, during func()) error {
	return s.restart(ctx, "kube-apiserver", s.environment.ControlPlane.GetAPIServer().Start, during)
}

// RestartEtcd is RestartAPIServer for etcd, which keeps its data.
func (s *Server) RestartEtcd(ctx context.Context, during func()) error {
	return s.restart(ctx, "etcd", s.environment.ControlPlane.Etcd.Start, during)
}

func (s *Server) restart(ctx context.Context, name string, start func() error, during func()) error {
	pid, err := s.pid(name)
	if err != nil {
		return err
	}
	// The whole group: the command, and what watches over it.
	if err := syscall.Kill(-pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill %s: %w", name, err)
	}
	err = Await(ctx, func(context.Context) (bool, error) {
		return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH), errors.New("it has not ended")
	})
	if err != nil {
		return fmt.Errorf("wait for the end of %s: %w", name, err)
	}
	if during != nil {
		during()
	}
	if err := start(); err != nil {
		return fmt.Errorf("start %s again: %w", name, err)
	}
	return nil
}

// HangAPIServer stops kube-apiserver while during runs, as a machine does that swaps or a disk that does not answer: connections stay
// and are accepted, and nothing is answered. Then it goes on.
func (s *Server) HangAPIServer(_ context.Context, during func()) error {
	pid, err := s.pid("kube-apiserver")
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return fmt.Errorf("stop kube-apiserver: %w", err)
	}
	if during != nil {
		during()
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		return fmt.Errorf("continue kube-apiserver: %w", err)
	}
	return nil
}

// pid returns the id of a process of the server.
func (s *Server) pid(name string) (int, error) {
	content, err := os.ReadFile(pidFile(filepath.Join(s.dir, name)))
	if err != nil {
		return 0, fmt.Errorf("find the process of %s: %w", name, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		return 0, fmt.Errorf("find the process of %s: %w", name, err)
	}
	return pid, nil
}
