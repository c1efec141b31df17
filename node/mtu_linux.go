package node

import (
	"net"
	"syscall"
)

// pathMTU returns the largest packet that the kernel sends to an address in one
// piece, by its routes and by what routers on the way have said; 0 where it has no
// route. A UDP socket that is connected there sends nothing by that.
func pathMTU(to net.IP) (mtu int) {
	c, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: to, Port: 9})
	if err != nil {
		return 0
	}
	defer func() { _ = c.Close() }()
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	level, option := syscall.IPPROTO_IP, syscall.IP_MTU
	if to.To4() == nil {
		level, option = syscall.IPPROTO_IPV6, syscall.IPV6_MTU
	}
	if raw.Control(func(fd uintptr) { mtu, err = syscall.GetsockoptInt(int(fd), level, option) }) != nil || err != nil {
		return 0
	}
	return mtu
}
