package gitserver

import "context"

// Path is a repository's directory: its URL for who reaches no network of the server's.
func (s *Server) Path(repo string) string { return s.bare(repo) }

// TakePushes lets everybody push to a repository over HTTP, as far as it can be read.
func (s *Server) TakePushes(ctx context.Context, repo string) error {
	_, err := s.git(ctx, s.bare(repo), "config", "http.receivepack", "true")
	return err
}
