package nftables

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// nfnlGroupNFTables is the multicast group of NETLINK_NETFILTER that tells of changes
// (NFNLGRP_NFTABLES of linux/netfilter/nfnetlink.h).
const nfnlGroupNFTables = 7

// watchTable tells, on a channel that holds one token, when a table was deleted or a chain
// of it, or when it can't be sure: what `nft flush ruleset` and the like do. The component's own
// deletions are told of too. failed holds the error that ended the watch on its own. stop ends
// it and waits.
func watchTable() (deleted <-chan struct{}, failed <-chan error, stop func(), err error) {
	socket, err := nl.Subscribe(unix.NETLINK_NETFILTER, nfnlGroupNFTables)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("subscribe to changes of nftables: %w", err)
	}
	deleted, failed, done := followTable(socket.Receive)
	return deleted, failed, func() { socket.Close(); <-done }, nil
}

// followTable reads messages until receive fails.
func followTable(receive func() ([]syscall.NetlinkMessage, *unix.SockaddrNetlink, error)) (deleted <-chan struct{}, failed <-chan error, done <-chan struct{}) {
	token, failure, ended := make(chan struct{}, 1), make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			messages, _, err := receive()
			if errors.Is(err, unix.EINTR) {
				continue
			}
			maybe := errors.Is(err, unix.ENOBUFS) // some were lost
			for _, m := range messages {
				maybe = maybe || deletesTable(m.Header.Type, m.Data)
			}
			if maybe {
				select {
				case token <- struct{}{}:
				default:
				}
			}
			if err != nil && !errors.Is(err, unix.ENOBUFS) {
				failure <- fmt.Errorf("read changes of nftables: %w", err) // nobody hears it after stop
				return
			}
		}
	}()
	return token, failure, ended
}

// deletesTable says whether a message of nfnetlink tells that one of the component's tables, or a
// rule of their base chains, was deleted. The attribute 1 is the table's name, and of rules
// the attribute 2 the chain's.
func deletesTable(kind uint16, data []byte) bool {
	message := kind & 0xff
	if kind>>8 != unix.NFNL_SUBSYS_NFTABLES || message != unix.NFT_MSG_DELTABLE && message != unix.NFT_MSG_DELRULE {
		return false
	}
	const header = 4 // struct nfgenmsg
	if len(data) < header {
		return false
	}
	ours := false
	for data = data[header:]; len(data) >= 4; {
		length := int(binary.NativeEndian.Uint16(data))
		attribute := binary.NativeEndian.Uint16(data[2:]) & 0x3fff // without the flags
		if length < 4 || length > len(data) {
			return false
		}
		text := string(bytes.TrimRight(data[4:length], "\x00"))
		switch attribute {
		case unix.NFTA_TABLE_NAME:
			if ours = text == tableName; !ours {
				return false
			}
			if message == unix.NFT_MSG_DELTABLE {
				return true
			}
		case unix.NFTA_RULE_CHAIN:
			return ours && (text == chainIn || text == chainOut || text == chainLocal || text == chainFrames)
		}
		data = data[min(len(data), (length+3)&^3):]
	}
	return false
}

// intact says whether the kernel has the base chains' rules.
func (p *programmer) intact(ctx context.Context) bool {
	for _, c := range baseChains {
		rules, err := p.nft.ListRules(ctx, c.Name)
		if err != nil || len(rules) != len(p.network.baseRules(c.Name, p.closed)) {
			return false
		}
	}
	if p.frames == nil || !p.guarded {
		return true
	}
	rules, err := p.frames.ListRules(ctx, chainFrames)
	return err == nil && len(rules) == 1
}
