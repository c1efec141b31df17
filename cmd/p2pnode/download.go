package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/p2pnode/p2pnode/node"
)

// copyBuffer is the unit in which a body is written.
const copyBuffer = 256 << 10

// errChanged: what the part file holds is no longer what the origin serves.
var errChanged = errors.New("the file has changed at the origin")

// download is one get: a URL, what of it is wanted, and where it goes.
type download struct {
	url      string
	want     byteRange
	digest   string // "": not checked
	out      string
	stdout   io.Writer // set where the output is stdout: nothing is resumed
	resume   bool
	tls      *tls.Config                            // for a gateway that speaks it
	progress func(have, total int64) io.WriteCloser // may return nil
}

func (d *download) partName() string { return d.out + ".part" }

// run downloads through a gateway, given by its URL. A part file of an older
// generation is dropped and read again, once.
func (d *download) run(ctx context.Context, gateway string) error {
	if d.stdout != nil {
		return d.stream(ctx, gateway, d.stdout)
	}
	w, err := d.direct()
	if err != nil {
		return err
	}
	if w != nil {
		return errors.Join(d.stream(ctx, gateway, w), w.Close())
	}
	d.out = resolve(d.out)
	unlock, err := d.lock()
	if err != nil {
		return err
	}
	defer unlock()
	p := d.loadPart()
	err = d.fill(ctx, gateway, &p)
	if errors.Is(err, errChanged) {
		p = part{}
		err = d.fill(ctx, gateway, &p)
	}
	if err != nil {
		d.dropEmpty()
		return fmt.Errorf("get %s: %w", d.url, err)
	}
	return d.finish()
}

// fill brings the part file from what p says to its full length.
func (d *download) fill(ctx context.Context, gateway string, p *part) (err error) {
	if p.complete() {
		return nil
	}
	res, err := d.request(ctx, gateway, *p)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := p.accept(d, res); err != nil {
		return err
	}
	file, err := os.OpenFile(d.partName(), os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		return fmt.Errorf("open the part file: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := file.Truncate(p.have); err != nil {
		return fmt.Errorf("cut the part file: %w", err)
	}
	if _, err := file.Seek(p.have, io.SeekStart); err != nil {
		return fmt.Errorf("continue the part file: %w", err)
	}
	// After the cut, so that the state never speaks for another's bytes.
	if err := d.savePart(*p); err != nil {
		return err
	}
	return d.copyBody(file, res.Body, p)
}

// copyBody appends a body to w and counts it in p; a short one is an error.
func (d *download) copyBody(w io.Writer, body io.Reader, p *part) error {
	sink := &countingWriter{w: w}
	if bar := d.progress(p.have, p.Length); bar != nil {
		defer bar.Close()
		sink.w = io.MultiWriter(w, bar)
	}
	// The wrappers hide ReadFrom and WriteTo, which would choose a smaller unit.
	_, err := io.CopyBuffer(sink, struct{ io.Reader }{body}, make([]byte, copyBuffer))
	p.have += sink.n
	switch {
	case sink.err != nil:
		return fmt.Errorf("write: %w", sink.err)
	case err != nil:
		return fmt.Errorf("transfer broke after %s: %w: run it again to continue", progressOf(*p), err)
	case p.Length >= 0 && p.have != p.Length:
		return fmt.Errorf("transfer is short: %s: run it again to continue", progressOf(*p))
	}
	return nil
}

// progressOf says how much is there, of how much.
func progressOf(p part) string {
	if p.Length < 0 {
		return fmt.Sprintf("%d bytes", p.have)
	}
	return fmt.Sprintf("%d of %d bytes", p.have, p.Length)
}

// countingWriter counts what w has taken and keeps its error apart from the
// reader's.
type countingWriter struct {
	w   io.Writer
	n   int64
	err error
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	if err != nil {
		c.err = err
	}
	return n, err
}

// request asks the gateway for what the part file lacks.
func (d *download) request(ctx context.Context, gateway string, p part) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, gateway+"/url/"+d.url, http.NoBody)
	if err != nil {
		return nil, err
	}
	// What Go would write anew, as it does with "|", stays as it is.
	rest, _, _ := strings.Cut(d.url, "?")
	req.URL.Opaque = "/url/" + rest
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "p2pnode/"+buildVersion())
	if want := p.header(d.want); want != "" {
		req.Header.Set("Range", want)
	}
	if p.have > 0 {
		req.Header.Set("If-Range", p.Validator)
	}
	res, err := newClient(d.tls).Do(req)
	if err != nil {
		return nil, err
	}
	switch {
	case res.StatusCode == http.StatusOK, res.StatusCode == http.StatusPartialContent:
		return res, nil
	case res.StatusCode == http.StatusRequestedRangeNotSatisfiable && p.have > 0:
		err = errChanged
	default:
		err = fmt.Errorf("answered %s%s", res.Status, reason(res.Body))
	}
	return nil, errors.Join(err, res.Body.Close())
}

// reason returns the first line of an error's text, for ": " after its status.
func reason(body io.Reader) string {
	line, _ := bufio.NewReader(io.LimitReader(body, 300)).ReadString('\n') // what there is of it will do
	line = strings.TrimSpace(clean(strings.TrimRight(line, "\r\n")))
	if line == "" || !utf8.ValidString(line) {
		return ""
	}
	return ": " + line
}

// stream downloads to w, without a part file.
func (d *download) stream(ctx context.Context, gateway string, w io.Writer) error {
	var p part
	res, err := d.request(ctx, gateway, p)
	if err != nil {
		return fmt.Errorf("get %s: %w", d.url, err)
	}
	defer res.Body.Close()
	if err := p.accept(d, res); err != nil {
		return fmt.Errorf("get %s: %w", d.url, err)
	}
	hash := d.hash()
	if hash == nil {
		err = d.copyBody(w, res.Body, &p)
	} else {
		err = d.copyBody(io.MultiWriter(w, hash), res.Body, &p)
	}
	if err != nil {
		return fmt.Errorf("get %s: %w", d.url, err)
	}
	return d.checkDigest(hash)
}

// finish checks the part file against the digest and gives it its name; a file
// with another digest is removed.
func (d *download) finish() error {
	if hash := d.hash(); hash != nil {
		if err := hashFile(hash, d.partName()); err != nil {
			return fmt.Errorf("check the digest: %w", err)
		}
		if err := d.checkDigest(hash); err != nil {
			return errors.Join(err, os.Remove(d.partName()), os.Remove(d.stateName()))
		}
	}
	if err := os.Rename(d.partName(), d.out); err != nil {
		return fmt.Errorf("name the output: %w", err)
	}
	if err := os.Remove(d.stateName()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the part's state: %w", err)
	}
	return nil
}

// digester is a hash that knows the name of its algorithm.
type digester interface {
	io.Writer
	Digest() string
}

// hash returns what the digest is to be checked with; nil for no check.
func (d *download) hash() digester {
	if d.digest == "" {
		return nil
	}
	return node.NewDigester(d.digest)
}

// checkDigest compares what was hashed, if it was.
func (d *download) checkDigest(hash digester) error {
	if hash == nil || hash.Digest() == d.digest {
		return nil
	}
	return fmt.Errorf("get %s: the bytes are %s, not %s: do not use them, check the URL and the digest", d.url, hash.Digest(), d.digest)
}

// hashFile hashes a file.
func hashFile(hash io.Writer, name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.CopyBuffer(hash, struct{ io.Reader }{file}, make([]byte, copyBuffer))
	return err
}

// parseDigest reads a digest; an empty string is none.
func parseDigest(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	digest, err := node.ParseDigest(s)
	if err != nil {
		return "", usagef("%w", err)
	}
	return digest, nil
}
