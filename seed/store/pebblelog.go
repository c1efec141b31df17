package store

import (
	"fmt"
	"log/slog"
)

// pebbleLog passes what pebble says on to slog.
type pebbleLog struct{ log *slog.Logger }

func (l pebbleLog) Infof(format string, args ...any) {
	l.log.Debug("record database", "detail", fmt.Sprintf(format, args...))
}

func (l pebbleLog) Errorf(format string, args ...any) {
	l.log.Warn("record database reports an error", "detail", fmt.Sprintf(format, args...))
}

// Fatalf is called where the database cannot go on, such as when its log cannot
// be written; pebble expects it not to return.
func (l pebbleLog) Fatalf(format string, args ...any) {
	detail := fmt.Sprintf(format, args...)
	l.log.Error("record database failed", "detail", detail)
	panic("record database failed: " + detail)
}
