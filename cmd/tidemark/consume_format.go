package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
)

// timeFormat is RFC 3339 with milliseconds, which is what a record has.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// appendText appends the value and a newline.
func appendText(dst []byte, r *kgo.Record) []byte {
	return append(append(dst, r.Value...), '\n')
}

// recordJSON is one line of --format json. Of each pair one field is there: the text, or null, or base64 if the bytes are not UTF-8.
type recordJSON struct {
	Topic     string          `json:"topic"`
	Partition int32           `json:"partition"`
	Offset    int64           `json:"offset"`
	Timestamp string          `json:"timestamp"`
	Key       json.RawMessage `json:"key,omitempty"`
	KeyB64    *string         `json:"key_b64,omitempty"`
	Value     json.RawMessage `json:"value,omitempty"`
	ValueB64  *string         `json:"value_b64,omitempty"`
	Headers   []headerJSON    `json:"headers"`
}

type headerJSON struct {
	Key      string          `json:"key"`
	Value    json.RawMessage `json:"value,omitempty"`
	ValueB64 *string         `json:"value_b64,omitempty"`
}

// appendJSON appends the record as one JSON object and a newline.
func appendJSON(dst []byte, r *kgo.Record) []byte {
	line := recordJSON{
		Topic: r.Topic, Partition: r.Partition, Offset: r.Offset,
		Timestamp: r.Timestamp.UTC().Format(timeFormat),
		Headers:   make([]headerJSON, 0, len(r.Headers)),
	}
	line.Key, line.KeyB64 = jsonBytes(r.Key)
	line.Value, line.ValueB64 = jsonBytes(r.Value)
	for _, h := range r.Headers {
		header := headerJSON{Key: h.Key}
		header.Value, header.ValueB64 = jsonBytes(h.Value)
		line.Headers = append(line.Headers, header)
	}
	out := bytes.NewBuffer(dst)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(line); err != nil {
		panic("record to JSON: " + err.Error()) // strings and numbers only
	}
	return out.Bytes()
}

// jsonBytes is b as a JSON string, or null, or in base64.
func jsonBytes(b []byte) (text json.RawMessage, b64 *string) {
	if b == nil {
		return json.RawMessage("null"), nil
	}
	if !utf8.Valid(b) {
		s := base64.StdEncoding.EncodeToString(b)
		return nil, &s
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(string(b)); err != nil {
		panic("string to JSON: " + err.Error())
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}
