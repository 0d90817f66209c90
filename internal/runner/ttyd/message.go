package ttyd

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/coder/websocket"
)

// Letters of the protocol; see the package's comment.
const (
	msgInput  = '0'
	msgResize = '1'
	msgPause  = '2'
	msgResume = '3'
	msgAck    = 'A'
	msgNew    = 'N'

	msgOutput  = '0'
	msgTitle   = '1'
	msgPrefs   = '2'
	msgState   = 'S'
	msgModes   = 'M'
	msgSize    = 'Z'
	msgAnswers = 'L'
	msgExit    = 'X'
	msgTyped   = 'K'
)

// hello is a client's first message.
type hello struct {
	AuthToken string `json:"AuthToken"`
	size
	Resume *struct {
		Instance string `json:"instance"`
		Offset   uint64 `json:"offset"`
		Client   string `json:"client"`
	} `json:"resume"`
}

// state is the payload of msgState.
type state struct {
	Terminal string `json:"terminal"`
	Instance string `json:"instance"`
	Offset   uint64 `json:"offset"`
	Live     uint64 `json:"live"`
	Reset    bool   `json:"reset"`
	Input    uint64 `json:"input"`
}

func readHello(ctx context.Context, conn *websocket.Conn) (hello, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	var h hello
	_, p, err := conn.Read(ctx)
	if err != nil {
		return h, err
	}
	if err := json.Unmarshal(p, &h); err != nil {
		return h, closing{websocket.StatusUnsupportedData, "the first message is no JSON object"}
	}
	return h, nil
}

// maxReason is how long the reason of a WebSocket's end may be (RFC 6455, section 5.5).
const maxReason = 123

// closing is an error that the client is told as a close code.
type closing struct {
	code   websocket.StatusCode
	reason string
}

func (c closing) Error() string { return c.reason }

// hangUp closes the connection with the code that fits why.
func hangUp(conn *websocket.Conn, why error) {
	var c closing
	switch {
	case errors.As(why, &c):
		_ = conn.Close(c.code, c.reason[:min(len(c.reason), maxReason)])
	case errors.Is(why, errEnded):
		_ = conn.Close(websocket.StatusNormalClosure, "the terminal was ended")
	case errors.Is(why, context.Canceled):
		_ = conn.Close(websocket.StatusGoingAway, "the session is ending")
	default:
		_ = conn.CloseNow()
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
