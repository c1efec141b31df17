//go:build !linux

package node

import "net"

// pathMTU is not known here.
func pathMTU(net.IP) int { return 0 }
