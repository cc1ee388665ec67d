package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// Variables by which git, through us, asks for a user name and a password.
const (
	askVariable      = "GIT_SYNC_STAND_IN_ASKS"
	passwordVariable = "GIT_SYNC_STAND_IN_PASSWORD_FILE"
)

// answerGit answers if it is git that runs this program: with a question such as "Password for 'https://git.example.com':".
func answerGit(args []string) (string, bool) {
	user, asked := os.LookupEnv(askVariable)
	if !asked || len(args) != 2 {
		return "", false
	}
	if strings.HasPrefix(args[1], "Username") {
		return user, true
	}
	password, err := os.ReadFile(os.Getenv(passwordVariable))
	if err != nil {
		return "", true // checkCredentials says so
	}
	return strings.TrimRight(string(password), "\n"), true
}

// gitEnvironment returns the environment that git runs in.
func gitEnvironment(s settings) ([]string, error) {
	environment := append(os.Environ(), "GIT_TERMINAL_PROMPT=0", "LC_ALL=C")
	if s.sshKeyFile != "" {
		environment = append(environment, "GIT_SSH_COMMAND="+sshCommand(s))
	}
	if s.passwordFile == "" {
		return environment, nil
	}
	// git-sync keeps passwords in git's credential cache, which is in HOME.
	probe, err := os.CreateTemp(os.Getenv("HOME"), ".git-sync-stand-in-")
	if err != nil {
		return nil, fmt.Errorf("a password wants a HOME that can be written to: %w", err)
	}
	if err := errors.Join(probe.Close(), os.Remove(probe.Name())); err != nil {
		return nil, fmt.Errorf("a password wants a HOME that can be written to: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	return append(environment, "GIT_ASKPASS="+self, askVariable+"="+s.username, passwordVariable+"="+s.passwordFile), nil
}

// sshCommand returns the command by which git calls ssh, a shell line.
func sshCommand(s settings) string {
	hosts := "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
	if s.sshKnownHosts {
		hosts = "-o StrictHostKeyChecking=yes -o UserKnownHostsFile=" + quote(s.sshKnownHostsFile)
	}
	return "ssh -i " + quote(s.sshKeyFile) + " " + hosts
}

// quote makes a word of a shell line.
func quote(word string) string {
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// checkCredentials tells that the password may not be read, as git-sync does, which reads it itself. Of the files that ssh reads
// it leaves it to ssh to speak.
func (r *repository) checkCredentials() error {
	if r.passwordFile == "" {
		return nil
	}
	if _, err := os.ReadFile(r.passwordFile); err != nil {
		return fmt.Errorf("can't read password file %q: %w", r.passwordFile, err)
	}
	return nil
}
