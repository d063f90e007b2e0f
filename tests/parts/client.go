// A client of enclave-signer: go run client.go SOCKET MESSAGE-IN-HEX [ADDRESS]
// It signs with the key of that address, or without one with an Ed25519 key that it makes.
package main

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

const maxBody, maxDepth = 131072, 16

var errReply = errors.New("the reply is not as documented")

type fields = map[string]any

// Nothing that is sent here is longer than 65535 bytes or entries.
func head(major byte, value int) []byte {
	switch {
	case value < 24:
		return []byte{major<<5 | byte(value)}
	case value < 256:
		return []byte{major<<5 | 24, byte(value)}
	}
	return []byte{major<<5 | 25, byte(value >> 8), byte(value)}
}

func encode(item any) []byte {
	switch item := item.(type) {
	case uint64:
		return head(0, int(item))
	case []byte:
		return append(head(2, len(item)), item...)
	case string:
		return append(head(3, len(item)), item...)
	}
	out := head(5, len(item.(fields)))
	for name, value := range item.(fields) {
		out = append(append(out, encode(name)...), encode(value)...)
	}
	return out
}

type decoder struct{ left []byte }

func (d *decoder) take(size uint64) []byte {
	if size > uint64(len(d.left)) {
		panic(errReply)
	}
	taken := d.left[:size]
	d.left = d.left[size:]
	return taken
}

func (d *decoder) item(depth int) any {
	first := d.take(1)[0]
	value := uint64(first & 31)
	if first == 0xf6 {
		return nil
	} else if depth == 0 || value > 27 {
		panic(errReply)
	} else if value >= 24 {
		wide := make([]byte, 8)
		width := uint64(1) << (value - 24)
		copy(wide[8-width:], d.take(width))
		value = binary.BigEndian.Uint64(wide)
	}
	switch first >> 5 {
	case 0:
		return value
	case 2:
		return d.take(value)
	case 3:
		return string(d.take(value))
	case 4: // Bytes, as tee-signer has them.
		octets := []byte{}
		for ; value > 0; value-- {
			octets = append(octets, byte(d.item(depth-1).(uint64)))
		}
		return octets
	case 5:
		found := fields{}
		for ; value > 0; value-- {
			name := d.item(depth - 1).(string)
			found[name] = d.item(depth - 1)
		}
		return found
	}
	panic(errReply)
}

type session struct{ net.Conn }

// Several may be sent before the first reply is received: replies come in the same order.
func (s session) send(call string, argument any) {
	body := encode(fields{call: argument})
	_, err := s.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	check(err)
}

func (s session) receive() fields {
	var length uint32
	check(binary.Read(s, binary.BigEndian, &length))
	if length > maxBody {
		panic(errReply)
	}
	body := make([]byte, length)
	_, err := io.ReadFull(s, body)
	check(err)
	reply := (&decoder{body}).item(maxDepth).(fields)
	if failed, ok := reply["Err"]; ok {
		check(errors.New(failed.(fields)["message"].(string)))
	}
	result, _ := reply["Ok"].(fields) // That of Initialize is null.
	return result
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	conn, err := net.Dial("unix", os.Args[1])
	check(err)
	check(conn.SetDeadline(time.Now().Add(30 * time.Second)))
	message, err := hex.DecodeString(os.Args[2])
	check(err)
	enclave := session{conn}
	if len(os.Args) > 3 {
		enclave.send("UseKey", os.Args[3])
	} else {
		enclave.send("Initialize", fields{})
		enclave.send("GenerateAndImport", "Ed25519")
		enclave.receive()
	}
	opened := enclave.receive()
	enclave.send("Sign", fields{"handle": opened["handle"], "message": message})
	signature := enclave.receive()
	for name, key := range opened["public_key"].(fields) {
		fmt.Printf("%s %x %x\n", name, key, signature[name])
	}
}
