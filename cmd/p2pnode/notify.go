package main

import (
	"log/slog"
	"net"
)

// notify tells systemd a state, where systemd asked for it with NOTIFY_SOCKET
// (sd_notify(3)). A name that begins with @ is in the abstract namespace.
func (a *app) notify(log *slog.Logger, state string) {
	socket, _ := a.env("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		log.Warn("cannot notify systemd", "state", state, "err", err)
		return
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		log.Warn("cannot notify systemd", "state", state, "err", err)
	}
}
