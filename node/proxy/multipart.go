package proxy

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strings"

	"github.com/p2pnode/p2pnode/internal/content"
)

// parts is a body of several ranges (RFC 9110 section 14.6).
type parts struct {
	ranges      []content.Range
	size        int64 // of the file
	contentType string
	boundary    string
}

func newParts(ranges []content.Range, meta content.Meta) *parts {
	return &parts{ranges: ranges, size: meta.Size, contentType: meta.ContentType, boundary: strings.ToLower(rand.Text())}
}

// mediaType is the Content-Type of the whole body.
func (p *parts) mediaType() string { return "multipart/byteranges; boundary=" + p.boundary }

// write writes the body to w; the bytes of a range are written by copyRange.
func (p *parts) write(w io.Writer, copyRange func(io.Writer, content.Range) error) error {
	m := multipart.NewWriter(w)
	if err := m.SetBoundary(p.boundary); err != nil {
		return fmt.Errorf("boundary %q: %w", p.boundary, err)
	}
	for _, r := range p.ranges {
		header := textproto.MIMEHeader{"Content-Range": {contentRange(r, p.size)}}
		if p.contentType != "" {
			header.Set("Content-Type", p.contentType)
		}
		part, err := m.CreatePart(header)
		if err != nil {
			return err
		}
		if err := copyRange(part, r); err != nil {
			return err
		}
	}
	return m.Close()
}

// length is the length of the body.
func (p *parts) length() (int64, error) {
	var n counted
	err := p.write(&n, func(_ io.Writer, r content.Range) error {
		n += counted(r.Len)
		return nil
	})
	return int64(n), err
}

// counted counts what is written to it.
type counted int64

func (c *counted) Write(p []byte) (int, error) {
	*c += counted(len(p))
	return len(p), nil
}

// multipart answers with several ranges. Of an error before the first byte,
// which it returns, nothing was sent.
func (s *sending) multipart(ctx context.Context, p *parts) error {
	length, err := p.length()
	if err != nil {
		return err
	}
	if err := s.file.Prime(ctx, p.ranges[0]); err != nil {
		return err
	}
	s.r, s.parts, s.status = content.Range{Len: length}, p, http.StatusPartialContent
	err = p.write(s, func(w io.Writer, r content.Range) error {
		n, err := s.file.Copy(ctx, w, r)
		if err == nil && n != r.Len {
			err = io.ErrUnexpectedEOF
		}
		return err
	})
	return s.sent(err)
}
