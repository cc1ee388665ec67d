package main

import (
	"archive/tar"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/mod/semver"
	"sigs.k8s.io/controller-runtime/tools/setup-envtest/remote"
	"sigs.k8s.io/controller-runtime/tools/setup-envtest/versions"
)

// downloadTimeout bounds one archive. Past it, building is no slower.
const downloadTimeout = 3 * time.Minute

// fetchPrebuilt downloads those of the missing components that setup-envtest publishes, and returns the others, which
// are to be built. That nothing can be downloaded is no error: then all of them are.
func fetchPrebuilt(
	ctx context.Context, opts options, pinned pins, inv *inventory, missing []component, out *screen,
) ([]component, error) {
	var wanted, others []component
	for _, c := range missing {
		if c.prebuilt {
			wanted = append(wanted, c)
		} else {
			others = append(others, c)
		}
	}
	if len(wanted) == 0 {
		return missing, nil
	}

	client := &remote.HTTPClient{Log: logr.Discard(), IndexURL: opts.index}
	archive, err := findArchive(ctx, client, opts.indexTimeout, pinned.kubernetes.version, out)
	if err == nil {
		err = installArchive(ctx, client, archive, pinned, inv, wanted, out)
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		out.printf("no download to use: %v", cause(err))
		// An archive that broke off half-way may have installed some.
		return append(inv.missing(wanted, pinned, opts.source), others...), nil
	}
	return others, nil
}

// cause shortens an error of the network to what a person can use: not the address, which is setup-envtest's affair.
func cause(err error) error {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return errors.New(dns.Err)
	}
	if request, ok := errors.AsType[*url.Error](err); ok {
		return request.Err
	}
	return err
}

// archive is one that can be downloaded.
type archive struct {
	version  versions.Concrete
	platform versions.PlatformItem
}

// findArchive looks for the published archive nearest to the pinned version, for at most limit.
func findArchive(
	ctx context.Context, client *remote.HTTPClient, limit time.Duration, pinned string, out *screen,
) (archive, error) {
	out.printf("looking for prebuilt programs near %s, for at most %s", pinned, seconds(limit))
	listing, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	published, err := client.ListVersions(listing)
	if errors.Is(listing.Err(), context.DeadlineExceeded) {
		return archive{}, fmt.Errorf("no list of downloads within %s", seconds(limit))
	}
	if err != nil {
		return archive{}, err
	}
	found, ok := nearest(published, pinned, versions.Platform{OS: runtime.GOOS, Arch: runtime.GOARCH})
	if !ok {
		return archive{}, fmt.Errorf("no release of %s for %s/%s among %d published",
			semver.MajorMinor(pinned), runtime.GOOS, runtime.GOARCH, len(published))
	}
	return found, nil
}

// nearest picks, of the published sets, the one for the platform that is closest to the pinned version. A patch release
// apart will do, the newer of two equally far; another minor release will not, since it may lack what the tests ask for.
func nearest(published []versions.Set, pinned string, platform versions.Platform) (archive, bool) {
	var want versions.Concrete
	if _, err := fmt.Sscanf(pinned, "v%d.%d.%d", &want.Major, &want.Minor, &want.Patch); err != nil {
		return archive{}, false
	}
	var near []archive
	for _, set := range published {
		if set.Version.Major != want.Major || set.Version.Minor != want.Minor {
			continue
		}
		for _, item := range set.Platforms {
			if item.Platform == platform {
				near = append(near, archive{version: set.Version, platform: item})
			}
		}
	}
	if len(near) == 0 {
		return archive{}, false
	}
	distance := func(a archive) int { return max(a.version.Patch-want.Patch, want.Patch-a.version.Patch) }
	return slices.MinFunc(near, func(a, b archive) int {
		return cmp.Or(cmp.Compare(distance(a), distance(b)), cmp.Compare(b.version.Patch, a.version.Patch))
	}), true
}

// installArchive downloads an archive, whose checksum the client checks, and installs the wanted components from it.
func installArchive(
	ctx context.Context, client *remote.HTTPClient, a archive, pinned pins, inv *inventory, wanted []component, out *screen,
) error {
	out.printf("downloading %s %s, usually some seconds", names(wanted), a.version)
	file, err := os.Create(inv.tempName("archive"))
	if err != nil {
		return err
	}
	defer func() {
		_ = file.Close()
		_ = os.Remove(file.Name())
	}()

	downloading, cancel := context.WithTimeout(ctx, downloadTimeout)
	defer cancel()
	counted := &countingWriter{to: file}
	stop := out.watch(func() string { return fmt.Sprintf("downloading, %d MB", counted.written.Load()/1e6) })
	err = client.GetVersion(downloading, a.version, a.platform, counted)
	took := stop()
	if err != nil {
		return err
	}

	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	unpacked, err := unpack(file, wanted, inv.tempName)
	defer func() {
		for _, tmp := range unpacked {
			_ = os.Remove(tmp)
		}
	}()
	if err != nil {
		return err
	}
	for _, c := range wanted {
		version, err := askVersion(ctx, unpacked[c.name], c)
		if err != nil {
			return err
		}
		e := entry{Version: version, Source: sourceDownload, Fingerprint: pinned.of(c).fingerprint}
		if err := inv.install(c, unpacked[c.name], e); err != nil {
			return err
		}
	}
	out.printf("downloaded %s in %s", inv.describe(wanted), seconds(took))
	return nil
}

// unpack writes the wanted programs of a gzipped tar to the files that name names, and says where each is, also when it
// fails. An archive that lacks one is an error.
func unpack(from io.Reader, wanted []component, name func(string) string) (map[string]string, error) {
	unpacked := map[string]string{}
	plain, err := gzip.NewReader(from)
	if err != nil {
		return unpacked, fmt.Errorf("unpack the archive: %w", err)
	}
	for files := tar.NewReader(plain); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return unpacked, fmt.Errorf("unpack the archive: %w", err)
		}
		// Only the last part of a path is looked at, so that no entry can be written anywhere else.
		base := path.Base(header.Name)
		if header.Typeflag != tar.TypeReg || !slices.ContainsFunc(wanted, func(c component) bool { return c.name == base }) {
			continue
		}
		unpacked[base] = name(base)
		if err := writeProgram(unpacked[base], files); err != nil {
			return unpacked, fmt.Errorf("unpack %s: %w", base, err)
		}
	}
	for _, c := range wanted {
		if unpacked[c.name] == "" {
			return unpacked, fmt.Errorf("the archive holds no %s", c.name)
		}
	}
	return unpacked, nil
}

func writeProgram(name string, from io.Reader) error {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, from)
	return errors.Join(err, file.Close())
}

// countingWriter counts what passes through, for the progress line.
type countingWriter struct {
	to      io.Writer
	written atomic.Int64
}

func (w *countingWriter) Write(p []byte) (int, error) {
	n, err := w.to.Write(p)
	w.written.Add(int64(n))
	return n, err
}
