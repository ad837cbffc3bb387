package nftables

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	utilnet "k8s.io/utils/net"
)

// span is a range of ports, both ends included.
type span struct{ first, last uint16 }

// mergeSpans makes spans disjoint and sorts them: nft refuses a set whose ranges overlap.
func mergeSpans(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.last, b.last)) })
	var merged []span
	for _, s := range spans {
		if n := len(merged); n > 0 && int(s.first) <= int(merged[n-1].last)+1 {
			merged[n-1].last = max(merged[n-1].last, s.last)
		} else {
			merged = append(merged, s)
		}
	}
	return merged
}

func (s span) String() string {
	if s.first == s.last {
		return fmt.Sprint(s.first)
	}
	return fmt.Sprintf("%d-%d", s.first, s.last)
}

// parseBlock reads an address block as the API takes it, which is more than netip does
// (leading zeros, bits behind the mask).
func parseBlock(text string) (netip.Prefix, bool) {
	_, block, err := utilnet.ParseCIDRSloppy(text)
	if err != nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(block.IP)
	ones, bits := block.Mask.Size()
	if !ok || bits != addr.BitLen() || addr.Is4In6() {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(addr, ones), true
}

// outermost drops blocks that lie within others, and sorts: nft refuses a set whose
// intervals overlap. Blocks never overlap otherwise.
func outermost(blocks []netip.Prefix) []netip.Prefix {
	slices.SortFunc(blocks, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var kept []netip.Prefix
	for _, b := range blocks {
		if n := len(kept); n == 0 || !kept[n-1].Contains(b.Addr()) {
			kept = append(kept, b)
		}
	}
	return kept
}

// braces writes an anonymous set.
func braces[T fmt.Stringer](items []T) string {
	texts := make([]string, len(items))
	for i, item := range items {
		texts[i] = item.String()
	}
	return "{ " + strings.Join(texts, ", ") + " }"
}
