package origin

import (
	"context"
	"io"
	"net/http"
	"slices"

	"github.com/p2pnode/p2pnode/internal/content"
)

// ask makes one attempt to get r.Range or the first part of it.
func (c *Client) ask(ctx context.Context, r Request) (*Response, error) {
	t, err := c.ledger.admit(ctx, r)
	if err != nil {
		return nil, err
	}
	resp, err := c.get(ctx, r, t.asked, t)
	if err != nil {
		t.fail(err)
		return nil, err
	}
	return resp, nil
}

// get asks for a range on a ticket, which the body of the response ends.
func (c *Client) get(ctx context.Context, r Request, asked content.Range, t *ticket) (*Response, error) {
	a, err := c.exchange(ctx, http.MethodGet, r, asked, t)
	if err != nil {
		return nil, err
	}
	if a.StatusCode == http.StatusRequestedRangeNotSatisfiable && asked.Off == 0 && !asked.Empty() {
		// No first byte: the file is empty. Ask for all of it, since a 416
		// need not carry validators.
		a.close(nil)
		if err = t.another(); err != nil {
			return nil, err
		}
		if a, err = c.exchange(ctx, http.MethodGet, r, content.Range{}, t); err != nil {
			return nil, err
		}
	}
	return c.accept(a, r, asked, t)
}

// askMeta makes one attempt to get the metadata.
func (c *Client) askMeta(ctx context.Context, r Request) (*Response, error) {
	t, err := c.ledger.admit(ctx, r)
	if err != nil {
		return nil, err
	}
	resp, err := c.head(ctx, r, t)
	if err != nil {
		t.fail(err)
		return nil, err
	}
	t.good(true)
	resp.Range, resp.Body = content.Range{}, http.NoBody
	return resp, nil
}

func (c *Client) head(ctx context.Context, r Request, t *ticket) (*Response, error) {
	a, err := c.exchange(ctx, http.MethodHead, r, content.Range{}, t)
	if err != nil {
		return nil, err
	}
	if headRefused(a.Response, r) {
		a.close(nil)
	} else {
		resp, err := c.judge(a, r, content.Range{})
		a.close(err)
		if err != nil {
			return nil, err
		}
		if m := resp.Meta; m.Generation == r.Known || m.Size <= 1 || slices.Contains(tokens(a.Header, "Accept-Ranges"), "bytes") {
			return resp, nil
		}
		// Whether the origin has ranges only a GET can tell.
	}
	if err := t.another(); err != nil {
		return nil, err
	}
	resp, err := c.get(ctx, r, content.Range{Len: 1}, t)
	if err != nil {
		return nil, err
	}
	if resp.Range.Len <= 1 {
		_, err = io.Copy(io.Discard, resp.Body) // lets the connection be used again
	}
	resp.Body.Close()
	return resp, err
}

func headRefused(resp *http.Response, r Request) bool {
	switch resp.StatusCode {
	case http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return true
	case http.StatusOK:
		if resp.ContentLength >= 0 {
			return false
		}
		size, _, err := untold(resp, r)
		return err != nil || size < 0
	}
	return false
}
