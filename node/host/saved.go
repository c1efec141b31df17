package host

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

const (
	// maxMet is the number of peers remembered, maxMetAddrs of addresses each.
	maxMet      = 64
	maxMetAddrs = 8
	// maxMetFile bounds what is read: the file holds 64 peers in 40 KiB or less.
	maxMetFile = 1 << 20
)

// metPeer is a peer that the host was connected to, as it stands in the file.
type metPeer struct {
	ID    peer.ID               `json:"id"`
	Addrs []multiaddr.Multiaddr `json:"-"`
	Text  []string              `json:"addrs"`
	Seen  time.Time             `json:"seen"`
}

// met is the set of peers met last, at most maxMet.
type met map[peer.ID]metPeer

// pick returns the peers in random order: nodes that start together do not all
// dial the same ones.
func (m met) pick() []peer.AddrInfo {
	infos := make([]peer.AddrInfo, 0, len(m))
	for _, p := range m {
		infos = append(infos, peer.AddrInfo{ID: p.ID, Addrs: p.Addrs})
	}
	rand.Shuffle(len(infos), func(i, j int) { infos[i], infos[j] = infos[j], infos[i] })
	return infos
}

// sorted returns the peers, last seen first.
func (m met) sorted() []metPeer {
	peers := make([]metPeer, 0, len(m))
	for _, p := range m {
		peers = append(peers, p)
	}
	slices.SortFunc(peers, func(a, b metPeer) int {
		return cmp.Or(b.Seen.Compare(a.Seen), cmp.Compare(a.ID, b.ID))
	})
	return peers
}

// observe notes the connected peers that told where they listen, and reports
// whether one is there that was not. A new peer takes the place of the one not
// seen for longest, but of none that is connected.
func (h *Host) observe(m met) (added bool) {
	now := time.Now()
	peers := h.Network().Peers()
	for _, id := range peers {
		if p, ok := m[id]; ok {
			p.Seen = now
			if addrs := h.listenAddrs(id); len(addrs) > 0 {
				p.Addrs = addrs
			}
			m[id] = p
		}
	}
	for _, id := range peers {
		if _, ok := m[id]; ok {
			continue
		}
		addrs := h.listenAddrs(id)
		if len(addrs) == 0 || len(m) >= maxMet && !m.evict(now) {
			continue
		}
		m[id] = metPeer{ID: id, Addrs: addrs, Seen: now}
		added = true
	}
	h.metrics.saved.Set(float64(len(m)))
	return added
}

// evict makes room for one, unless all were seen at now.
func (m met) evict(now time.Time) bool {
	var oldest metPeer
	for _, p := range m {
		if p.Seen.Before(now) && (oldest.ID == "" || p.Seen.Before(oldest.Seen)) {
			oldest = p
		}
	}
	delete(m, oldest.ID)
	return oldest.ID != ""
}

// listenAddrs returns what identify told of a connected peer, nothing before
// it has run.
func (h *Host) listenAddrs(id peer.ID) []multiaddr.Multiaddr {
	if v, err := h.Peerstore().Get(id, "AgentVersion"); err != nil || v == "" {
		return nil
	}
	addrs := h.Peerstore().Addrs(id)
	slices.SortFunc(addrs, multiaddr.Multiaddr.Compare)
	return addrs[:min(len(addrs), maxMetAddrs)]
}

// loadMet reads the saved peers. A file that cannot be read costs the knowledge
// in it, not the start: it is logged.
func (h *Host) loadMet() met {
	if h.cfg.SavedPeersFile == "" {
		return met{}
	}
	m, err := readMet(h.cfg.SavedPeersFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.log.Warn("cannot read the saved peers, starting without them", "file", h.cfg.SavedPeersFile, "err", err)
	}
	delete(m, h.ID())
	return m
}

func readMet(path string) (met, error) {
	f, err := os.Open(path)
	if err != nil {
		return met{}, err
	}
	defer f.Close()
	return decodeMet(io.LimitReader(f, maxMetFile))
}

func decodeMet(r io.Reader) (met, error) {
	m := met{}
	var peers []metPeer
	if err := json.NewDecoder(r).Decode(&peers); err != nil {
		return m, err
	}
	for _, p := range peers[:min(len(peers), maxMet)] {
		if p.ID == "" {
			return met{}, errors.New("a peer without an ID")
		}
		for _, s := range p.Text[:min(len(p.Text), maxMetAddrs)] {
			a, err := multiaddr.NewMultiaddr(s)
			if err != nil {
				return met{}, fmt.Errorf("address of peer %s: %w", p.ID, err)
			}
			p.Addrs = append(p.Addrs, a)
		}
		m[p.ID] = p
	}
	return m, nil
}

// saveMet writes the file, if there is one to write. A failure is logged.
func (h *Host) saveMet(m met) {
	if h.cfg.SavedPeersFile == "" || len(m) == 0 {
		return
	}
	peers := m.sorted()
	for i := range peers {
		peers[i].Text = nil
		for _, a := range peers[i].Addrs {
			peers[i].Text = append(peers[i].Text, a.String())
		}
	}
	text, err := json.MarshalIndent(peers, "", " ")
	if err == nil {
		err = replaceFile(h.cfg.SavedPeersFile, text)
	}
	if err != nil {
		h.log.Warn("cannot save the peers met", "file", h.cfg.SavedPeersFile, "err", err)
	}
}
