package rangeread

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Fill has peer from bring in a range and returns when it holds it: req with
// FillOnly set. Errors are those of Open.
func (c *Client) Fill(ctx context.Context, from peer.ID, req Request) (Header, error) {
	req.FillOnly = true
	b, err := c.Open(ctx, from, req)
	if err != nil {
		return Header{}, err
	}
	defer func() { _ = b.Close() }()
	if _, err := b.Next(nil); !errors.Is(err, io.EOF) {
		if err == nil {
			err = fmt.Errorf("%w: %s sent bytes that nobody asked for", ErrProtocol, from)
		}
		return Header{}, err
	}
	return b.Header, nil
}
