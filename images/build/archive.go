package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// keyring is what Debian's archive is trusted by.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// mirror is where Debian's packages come from: URIs as in sources.list.
type mirror struct {
	main, security string
}

// mirrorFromEnvironment returns what DEBIAN_MIRROR and DEBIAN_SECURITY_MIRROR say, which may be nothing.
func mirrorFromEnvironment() mirror {
	return mirror{main: os.Getenv("DEBIAN_MIRROR"), security: os.Getenv("DEBIAN_SECURITY_MIRROR")}
}

// archive is Debian's archive for one architecture. It is read by apt-get in a folder of its own, so that neither the packages
// nor the release of this machine have a say, and its root is not changed.
type archive struct {
	architecture string
	folder       string
	options      []string
	known        map[string]debianPackage
}

// debianPackage is what the archive's index says of a package.
type debianPackage struct {
	name, version, sha256 string
	fields                []string // the stanza's, whole
	depends               []string
}

// archive returns Debian's archive of an architecture, its index brought up to date once in a run.
func (b *builder) archive(ctx context.Context, architecture string) (*archive, error) {
	if a := b.archives[architecture]; a != nil {
		return a, nil
	}
	for _, program := range []string{"apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%s is not here: images of Debian's packages are made on Debian or with its apt and dpkg; "+
				"name others only, such as pillion", program)
		}
	}
	if _, err := os.Stat(keyring); err != nil {
		return nil, fmt.Errorf("the keys of Debian's archive are not here (%w); install debian-archive-keyring", err)
	}
	m, err := findMirror(ctx)
	if err != nil {
		return nil, err
	}
	a := &archive{
		architecture: architecture, folder: filepath.Join(b.cache, "debian", architecture), known: map[string]debianPackage{},
	}
	if err := a.configure(m); err != nil {
		return nil, fmt.Errorf("set up apt in a folder of its own: %w", err)
	}
	fmt.Fprintf(b.log, "reading the index of Debian %s for %s\n", debianRelease, architecture)
	if _, err := a.apt(ctx, a.folder, "apt-get", "update", "-qq", "--error-on=any"); err != nil {
		return nil, fmt.Errorf("read the index of Debian's archive: %w", err)
	}
	b.archives[architecture] = a
	return a, nil
}

// findMirror returns the mirror that the environment names, or else the one that this machine's apt uses.
func findMirror(ctx context.Context) (mirror, error) {
	m := mirrorFromEnvironment()
	if m.main == "" {
		out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)",
			"Created-By: Packages", "Origin: Debian").Output()
		if err != nil {
			return mirror{}, fmt.Errorf("ask apt for its mirror: %w", err)
		}
		for line := range strings.Lines(string(out)) {
			uri, release, _ := strings.Cut(strings.TrimSpace(line), " ")
			switch {
			case strings.HasSuffix(release, "-security") && m.security == "":
				m.security = uri
			case !strings.Contains(release, "-") && m.main == "":
				m.main = uri
			}
		}
	}
	if m.main == "" {
		return mirror{}, errors.New("this machine's apt knows no archive of Debian; run apt-get update, " +
			"or name one by DEBIAN_MIRROR=URI (and DEBIAN_SECURITY_MIRROR=URI)")
	}
	return m, nil
}

// configure makes apt's folders and its list of sources.
func (a *archive) configure(m mirror) error {
	for _, folder := range []string{"etc/sources.list.d", "etc/preferences.d", "lists/partial", "archives/partial", "packages"} {
		if err := os.MkdirAll(filepath.Join(a.folder, folder), 0o755); err != nil {
			return err
		}
	}
	line := func(uri, suite string) string {
		return fmt.Sprintf("deb [arch=%s signed-by=%s] %s %s main\n", a.architecture, keyring, uri, suite)
	}
	sources := line(m.main, debianRelease) + line(m.main, debianRelease+"-updates")
	if m.security != "" {
		sources += line(m.security, debianRelease+"-security")
	}
	set := func(option, value string) { a.options = append(a.options, "-o", option+"="+value) }
	set("Dir::Etc", filepath.Join(a.folder, "etc"))
	set("Dir::State", a.folder)
	set("Dir::State::status", filepath.Join(a.folder, "status"))
	set("Dir::Cache", a.folder)
	set("APT::Architecture", a.architecture)
	set("APT::Architectures::", a.architecture)
	set("Acquire::Languages", "none")
	set("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false")
	if os.Geteuid() == 0 {
		set("APT::Sandbox::User", "root") // apt's own user could not write below the repository
	}
	return errors.Join(
		os.WriteFile(filepath.Join(a.folder, "etc", "sources.list"), []byte(sources), 0o644), //nolint:gosec // no secret
		os.WriteFile(filepath.Join(a.folder, "status"), nil, 0o644),                          //nolint:gosec // no secret
	)
}

// apt runs one of apt's programs on the archive, in a folder, and returns what it prints.
func (a *archive) apt(ctx context.Context, folder, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, append(slices.Clone(a.options), args...)...)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	var out, problems strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", program, args[0], err, strings.TrimSpace(problems.String()))
	}
	return out.String(), nil
}

// resolve returns the packages of these names and the shared libraries that they depend on, by name.
func (a *archive) resolve(ctx context.Context, names []string) ([]debianPackage, error) {
	found := map[string]debianPackage{}
	for wanted := names; len(wanted) > 0; {
		if err := a.show(ctx, wanted); err != nil {
			return nil, err
		}
		var next []string
		for _, name := range wanted {
			pkg, there := a.known[name]
			if !there {
				if slices.Contains(names, name) {
					return nil, fmt.Errorf("the release %s of Debian has no package %s for %s", debianRelease, name, a.architecture)
				}
				continue // a virtual package; what it stands for is missed by missingLibraries, if it is needed
			}
			found[name] = pkg
			for _, dependency := range pkg.depends {
				if _, known := found[dependency]; !known && !slices.Contains(next, dependency) && !slices.Contains(wanted, dependency) {
					next = append(next, dependency)
				}
			}
		}
		wanted = next
	}
	resolved := make([]debianPackage, 0, len(found))
	for _, pkg := range found {
		resolved = append(resolved, pkg)
	}
	slices.SortFunc(resolved, func(a, b debianPackage) int { return strings.Compare(a.name, b.name) })
	return resolved, nil
}

// show reads what the index says of packages that are not known yet. Names that it does not have are no error here.
func (a *archive) show(ctx context.Context, names []string) error {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { _, known := a.known[name]; return known })
	if len(names) == 0 {
		return nil
	}
	out, err := a.apt(ctx, a.folder, "apt-cache", append([]string{"show", "--no-all-versions"}, names...)...)
	if err != nil && !strings.Contains(err.Error(), "No packages found") {
		return err
	}
	for stanza := range strings.SplitSeq(out, "\n\n") {
		if pkg := parseStanza(stanza); pkg.name != "" {
			a.known[pkg.name] = pkg
		}
	}
	return nil
}

// parseStanza reads a paragraph of Debian's control format.
func parseStanza(stanza string) debianPackage {
	pkg := debianPackage{}
	for line := range strings.Lines(stanza) {
		line = strings.TrimRight(line, "\n")
		if line == "" {
			continue
		}
		if line[0] == ' ' && len(pkg.fields) > 0 {
			pkg.fields[len(pkg.fields)-1] += "\n" + line
			continue
		}
		pkg.fields = append(pkg.fields, line)
	}
	pkg.name, pkg.version, pkg.sha256 = pkg.field("Package"), pkg.field("Version"), pkg.field("SHA256")
	for _, list := range []string{pkg.field("Pre-Depends"), pkg.field("Depends")} {
		for alternatives := range strings.SplitSeq(list, ",") {
			first, _, _ := strings.Cut(alternatives, "|")
			name, _, _ := strings.Cut(strings.TrimSpace(first), " ")
			name, _, _ = strings.Cut(name, ":")
			if isLibrary(name) {
				pkg.depends = append(pkg.depends, name)
			}
		}
	}
	return pkg
}

// isLibrary tells whether a package of this name holds a shared library, or the copyright of one.
func isLibrary(name string) bool {
	switch {
	case strings.HasSuffix(name, "-perl"):
		return false
	case strings.HasPrefix(name, "gcc-") && strings.HasSuffix(name, "-base"):
		return true
	default:
		return strings.HasPrefix(name, "lib") || name == "zlib1g"
	}
}

// field returns the value of a field of the stanza.
func (p *debianPackage) field(name string) string {
	for _, field := range p.fields {
		if key, value, _ := strings.Cut(field, ":"); key == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// status returns the stanza that dpkg would keep of the package, as far as anybody reads it in an image.
func (p *debianPackage) status() string {
	text := "Package: " + p.name + "\nStatus: install ok installed\n"
	for _, name := range []string{"Architecture", "Version", "Source", "Maintainer", "Homepage", "Depends", "Description"} {
		if value := p.field(name); value != "" {
			text += name + ": " + value + "\n"
		}
	}
	return text
}

// download returns the files of packages, each of the hash that the signed index says. What is there is not fetched again.
func (a *archive) download(ctx context.Context, packages []debianPackage) ([]string, error) {
	files, missing := make([]string, len(packages)), []string{}
	for i, pkg := range packages {
		files[i] = filepath.Join(a.folder, "packages", pkg.sha256+".deb")
		if sum, err := hashOf(files[i]); err != nil || sum != pkg.sha256 {
			missing = append(missing, pkg.name+"="+pkg.version)
		}
	}
	if len(missing) == 0 {
		return files, nil
	}
	folder, err := os.MkdirTemp(a.folder, "download-")
	if err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	defer os.RemoveAll(folder) //nolint:errcheck // the cache may hold what is left
	if _, err := a.apt(ctx, folder, "apt-get", append([]string{"download", "-qq"}, missing...)...); err != nil {
		return nil, fmt.Errorf("download Debian's packages: %w", err)
	}
	downloaded, err := filepath.Glob(filepath.Join(folder, "*.deb"))
	if err != nil {
		return nil, fmt.Errorf("list what was downloaded: %w", err)
	}
	for _, file := range downloaded {
		sum, err := hashOf(file)
		if err != nil {
			return nil, err
		}
		if err := os.Rename(file, filepath.Join(a.folder, "packages", sum+".deb")); err != nil {
			return nil, fmt.Errorf("keep a package: %w", err)
		}
	}
	for i, file := range files {
		if _, err := os.Stat(file); err != nil {
			return nil, fmt.Errorf("package %s %s of Debian was not downloaded as its index says: %w",
				packages[i].name, packages[i].version, err)
		}
	}
	return files, nil
}

func hashOf(file string) (string, error) {
	in, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer in.Close() //nolint:errcheck // it is only read
	sum := sha256.New()
	if _, err := io.Copy(sum, in); err != nil {
		return "", fmt.Errorf("hash %s: %w", file, err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// upstreamVersion returns the version that a package's authors gave it: 0.5.0 of 1:0.5.0+dfsg-2+b2.
func upstreamVersion(version string) string {
	if _, rest, found := strings.Cut(version, ":"); found {
		version = rest
	}
	if i := strings.LastIndex(version, "-"); i >= 0 {
		version = version[:i]
	}
	version, _, _ = strings.Cut(version, "+")
	return version
}
