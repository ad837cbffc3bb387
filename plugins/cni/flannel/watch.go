package flannel

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/knftables"
)

// resubscribeDelay keeps a socket that fails over and over (ENOBUFS under churn) from
// taking a whole core.
const resubscribeDelay = 100 * time.Millisecond

// watchLinks returns an error as soon as one of the interfaces is gone, and nil when ctx
// ends. flannel's vxlan backend makes a lost device anew, but neither its routes nor its
// neighbours, and nobody makes the bridge anew: the component's next start does it all.
//
// A netlink subscription that breaks is opened again; what was missed meanwhile is seen
// by looking.
func watchLinks(ctx context.Context, names []string, log hclog.Logger) error {
	for {
		closed, err := watchLinksOnce(ctx, names)
		if err != nil || ctx.Err() != nil {
			return err
		}
		log.Warn("netlink subscription broke; opening it again", "error", closed)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(resubscribeDelay):
		}
	}
}

// watchLinksOnce serves one subscription. closed says why that ended.
func watchLinksOnce(ctx context.Context, names []string) (closed, err error) {
	updates := make(chan netlink.LinkUpdate, 64)
	done := make(chan struct{})
	defer func() {
		close(done)
		for range updates { // until the subscription's goroutine has ended
		}
	}()
	reason := make(chan error, 1)
	err = netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{
		ErrorCallback: func(err error) {
			select {
			case reason <- err:
			default:
			}
		},
	})
	if err != nil {
		close(updates)
		return err, nil
	}
	indices := map[int]string{}
	for _, name := range names {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return nil, fmt.Errorf("interface %s is gone, the pod network has to be made anew: %w", name, err)
		}
		indices[link.Attrs().Index] = name
	}
	for {
		select {
		case <-ctx.Done():
			return nil, nil
		case update, open := <-updates:
			if !open {
				select {
				case closed = <-reason:
				default:
				}
				return closed, nil
			}
			name, ours := indices[int(update.Index)]
			// A bridge's own events come with RTM_DELLINK too, when a port leaves it;
			// those are of the family AF_BRIDGE.
			if ours && update.Header.Type == unix.RTM_DELLINK && update.Family != unix.AF_BRIDGE {
				return nil, fmt.Errorf("interface %s is gone, the pod network has to be made anew", name)
			}
		}
	}
}

// nfnlGroupNFTables is the multicast group of NETLINK_NETFILTER that tells of changes
// (NFNLGRP_NFTABLES of linux/netfilter/nfnetlink.h).
const nfnlGroupNFTables = 7

// watchTables tells, on a channel that holds one token, when something was deleted from
// one of the nftables tables, or when it can't be sure. stop ends it and waits.
func watchTables(ctx context.Context, tables map[string]knftables.Family) (changes <-chan struct{}, stop func(), err error) {
	socket, err := nl.Subscribe(unix.NETLINK_NETFILTER, nfnlGroupNFTables)
	if err != nil {
		return nil, nil, fmt.Errorf("subscribe to changes of nftables: %w", err)
	}
	token := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			messages, _, err := socket.Receive()
			maybe := err != nil // ENOBUFS: some were lost
			for _, m := range messages {
				maybe = maybe || deletesFrom(m.Header.Type, m.Data, tables)
			}
			if maybe {
				select {
				case token <- struct{}{}:
				default:
				}
			}
			if err != nil && !errors.Is(err, unix.ENOBUFS) {
				return // closed
			}
		}
	}()
	return token, func() { socket.Close(); <-done }, nil
}

// deletesFrom says whether a message of nfnetlink tells of a deleted table, chain or rule
// in one of the tables.
func deletesFrom(kind uint16, data []byte, tables map[string]knftables.Family) bool {
	if kind>>8 != unix.NFNL_SUBSYS_NFTABLES {
		return false
	}
	switch kind & 0xff {
	case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_DELRULE:
	default:
		return false
	}
	const header = 4 // struct nfgenmsg
	if len(data) < header {
		return false
	}
	// The attribute 1 is the table's name in all three sorts.
	for data = data[header:]; len(data) >= 4; {
		length := int(binary.NativeEndian.Uint16(data))
		attribute := binary.NativeEndian.Uint16(data[2:]) & 0x3fff // without the flags
		if length < 4 || length > len(data) {
			return false
		}
		if attribute == unix.NFTA_TABLE_NAME {
			_, ours := tables[string(bytes.TrimRight(data[4:length], "\x00"))]
			return ours
		}
		data = data[min(len(data), (length+3)&^3):]
	}
	return false
}
