package agent

import (
	"encoding/hex"
	"errors"
	"strings"
)

// nodeToken is a token taken apart: K10<sha256 of the server CA, in hex>::<user>:<secret>.
type nodeToken struct{ caHash, user, secret string }

// parseToken never repeats the token in an error.
func parseToken(s string) (nodeToken, error) {
	hash, rest, found := strings.Cut(strings.TrimPrefix(s, "K10"), "::")
	user, secret, ok := strings.Cut(rest, ":")
	if raw, err := hex.DecodeString(hash); !strings.HasPrefix(s, "K10") || !found || !ok || err != nil || len(raw) != 32 || user == "" || secret == "" {
		return nodeToken{}, errors.New("the token is not of the form K10<hash>::node:<secret>: copy it whole from <data-dir>/server/node-token of a server")
	}
	return nodeToken{strings.ToLower(hash), user, secret}, nil
}
