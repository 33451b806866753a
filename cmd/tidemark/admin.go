package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"time"
)

// AdminFlags lead to a node's admin listener.
type AdminFlags struct {
	Admin string `default:"127.0.0.1:9644" env:"TIDEMARK_ADMIN" help:"Admin listener of the node." placeholder:"HOST:PORT"`
}

// adminError is a refusal of the admin listener.
type adminError struct {
	addr, text string
	status     int
}

func (e *adminError) Error() string { return fmt.Sprintf("admin listener %s: %s", e.addr, e.text) }

// adminPatience is how long an answer may take beyond what it has to.
const adminPatience = 10 * time.Second

// get fetches a path of the admin listener; wait is how long the answer has to take.
func (a *AdminFlags) get(e *env, path string, wait time.Duration) ([]byte, error) {
	return a.do(e, http.MethodGet, path, nil, wait)
}

// do asks the admin listener.
func (a *AdminFlags) do(e *env, method, path string, body io.Reader, wait time.Duration) ([]byte, error) {
	req, err := http.NewRequestWithContext(e.ctx, method, "http://"+a.Admin+path, body)
	if err != nil {
		return nil, usageErrorf("--admin %q: %w", a.Admin, err)
	}
	client := http.Client{Timeout: wait + adminPatience}
	resp, err := client.Do(req)
	if err != nil {
		return nil, exitWith(exitUnreachable, fmt.Errorf("admin listener %s: %w (is the node running, with --admin-listen?)", a.Admin, err))
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, 256<<20))
	if err != nil {
		return nil, exitWith(exitUnreachable, fmt.Errorf("admin listener %s: %w", a.Admin, err))
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return nil, exitWith(exitRefused, &adminError{a.Admin, string(bytes.TrimSpace(got)), resp.StatusCode})
	}
	return got, nil
}
