package patterns_test

import (
	"cmp"
	"crypto/md5"
	"encoding/binary"
	"fmt"
	"slices"
)

// ketamaRing is where ketama, the consistent hashing of memcached's clients, puts servers of equal weight: at 160 points each, four
// from each hash of the name and a number.
type ketamaRing []ketamaPoint

type ketamaPoint struct {
	at     uint32
	server int
}

func newKetamaRing(names []string) ketamaRing {
	var ring ketamaRing
	for server, name := range names {
		for i := range 40 {
			hash := md5.Sum(fmt.Appendf(nil, "%s-%d", name, i))
			for part := range 4 {
				ring = append(ring, ketamaPoint{at: binary.LittleEndian.Uint32(hash[4*part:]), server: server})
			}
		}
	}
	slices.SortFunc(ring, func(a, b ketamaPoint) int { return cmp.Compare(a.at, b.at) })
	return ring
}

// server is the one at the first point that a key does not come after.
func (r ketamaRing) server(key string) int {
	hash := md5.Sum([]byte(key))
	at := binary.LittleEndian.Uint32(hash[:])
	i, _ := slices.BinarySearchFunc(r, at, func(point ketamaPoint, at uint32) int { return cmp.Compare(point.at, at) })
	return r[i%len(r)].server
}
