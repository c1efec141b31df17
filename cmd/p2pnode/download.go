package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"unicode/utf8"
)

// copyBuffer is the unit in which a body is written.
const copyBuffer = 256 << 10

// errChanged: what the part file holds is no longer what the origin serves.
var errChanged = errors.New("the file has changed at the origin")

// download is one get: a URL, what of it is wanted, and where it goes.
type download struct {
	url      string
	want     byteRange
	digest   []byte // nil: not checked
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
	line = strings.TrimSpace(strings.Map(printable, strings.TrimRight(line, "\r\n")))
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
	hash := sha256.New()
	if err := d.copyBody(io.MultiWriter(w, hash), res.Body, &p); err != nil {
		return fmt.Errorf("get %s: %w", d.url, err)
	}
	return d.checkDigest(hash.Sum(nil))
}

// finish checks the part file against the digest and gives it its name; a file
// with another digest is removed.
func (d *download) finish() error {
	if d.digest != nil {
		sum, err := hashFile(d.partName())
		if err != nil {
			return fmt.Errorf("check the digest: %w", err)
		}
		if err := d.checkDigest(sum); err != nil {
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

func (d *download) checkDigest(sum []byte) error {
	if d.digest == nil || bytes.Equal(sum, d.digest) {
		return nil
	}
	return fmt.Errorf("get %s: the bytes are sha256:%x, not sha256:%x: do not use them, check the URL and the digest", d.url, sum, d.digest)
}

// hashFile returns the SHA-256 of a file.
func hashFile(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.CopyBuffer(hash, struct{ io.Reader }{file}, make([]byte, copyBuffer)); err != nil {
		return nil, err
	}
	return hash.Sum(nil), nil
}

// parseDigest reads sha256:HEX; an empty string is no digest.
func parseDigest(s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	text, ok := strings.CutPrefix(s, "sha256:")
	sum, err := hex.DecodeString(text)
	if !ok || err != nil || len(sum) != sha256.Size {
		return nil, usagef("digest %q: write sha256: and 64 hexadecimal digits", s)
	}
	return sum, nil
}
