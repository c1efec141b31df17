package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
)

const (
	// barPeriod is how often the progress bar is drawn.
	barPeriod = 100 * time.Millisecond
	// maxDrawn is how many bytes a bar shows, 4 TiB: it panics from a thousand
	// exabytes a second on, which a larger count that is there from the first makes in
	// the some 50 ns until it is drawn. This one would in 4 ns.
	maxDrawn = 4 << 40
)

// progress returns the writer that shows a download's progress, or nil where
// stderr is no terminal. total is -1 where it is not known.
func (a *app) progress(have, total int64) io.WriteCloser {
	if file := a.terminal(); file != nil {
		return newBar(file, have, total)
	}
	return nil
}

// terminal returns stderr where that is a terminal, else nil.
func (a *app) terminal() *os.File {
	file, ok := a.stderr.(*os.File)
	if !ok {
		return nil
	}
	if info, err := file.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	return file
}

// bar draws on a terminal how many bytes were written to it.
type bar struct {
	to    io.Writer
	drawn *progressbar.ProgressBar
}

func newBar(to io.Writer, have, total int64) *bar {
	b := &bar{to: to, drawn: progressbar.NewOptions64(min(total, maxDrawn),
		progressbar.OptionSetWriter(to),
		progressbar.OptionShowBytes(true),
		progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(barPeriod),
		progressbar.OptionSetSpinnerChangeInterval(0), // else it starts a goroutine
	)}
	if have > 0 {
		_ = b.drawn.Set64(min(have, maxDrawn))
	}
	return b
}

// Write never fails: a bar that cannot be drawn must not end a download.
func (b *bar) Write(p []byte) (int, error) {
	_, _ = b.drawn.Write(p)
	return len(p), nil
}

// set draws a state of which both parts may change.
func (b *bar) set(done, total int64) {
	total = min(max(total, 1), maxDrawn)
	b.drawn.ChangeMax64(total)
	_ = b.drawn.Set64(min(max(done, 0), total))
}

// clear makes room for a line of text.
func (b *bar) clear() { _ = b.drawn.Clear() }

// Close leaves the bar as it stands and ends its line.
func (b *bar) Close() error {
	_, err := fmt.Fprintln(b.to)
	return err
}
