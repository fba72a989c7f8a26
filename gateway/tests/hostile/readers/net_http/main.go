// Command net_http reads streams of requests with Go's net/http: lines of JSON in, lines of JSON out, as readers.py.
package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
)

type request struct {
	Method string      `json:"method"`
	Target string      `json:"target"`
	Fields [][2]string `json:"fields"`
	Body   string      `json:"body"`
}

type answer struct {
	ID       int       `json:"id"`
	Requests []request `json:"requests"`
	End      string    `json:"end"`
}

func main() {
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for {
		var stream struct {
			ID  int    `json:"id"`
			Hex string `json:"hex"`
		}
		if err := in.Decode(&stream); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			panic(err)
		}
		data, err := hex.DecodeString(stream.Hex)
		if err != nil {
			panic(err)
		}
		requests, end := read(data)
		if err := json.NewEncoder(out).Encode(answer{stream.ID, requests, end}); err != nil {
			panic(err)
		}
	}
}

func read(data []byte) ([]request, string) {
	requests := []request{}
	reader := bufio.NewReader(bytes.NewReader(data))
	for {
		got, err := http.ReadRequest(reader)
		if err != nil {
			return requests, ending(err)
		}
		body, err := io.ReadAll(got.Body)
		if err != nil {
			return requests, ending(err)
		}
		fields := [][2]string{{"host", got.Host}}
		for name, values := range got.Header {
			for _, value := range values {
				fields = append(fields, [2]string{name, latin1([]byte(value))})
			}
		}
		requests = append(requests, request{got.Method, latin1([]byte(got.RequestURI)), fields, latin1(body)})
	}
}

func ending(err error) string {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "partial"
	case errors.Is(err, io.EOF):
		return "clean"
	default:
		return err.Error()
	}
}

// latin1 makes a text of which every character is one byte.
func latin1(data []byte) string {
	runes := make([]rune, len(data))
	for at, each := range data {
		runes[at] = rune(each)
	}
	return string(runes)
}
