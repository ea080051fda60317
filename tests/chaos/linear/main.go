// linear checks that the history of a receiver's single keys is linearizable: that there is an order of all operations
// which keeps to their times and in which each load returns what the saves and deletes before it leave.
//
// It reads JSON lines (see history.go), prints one JSON object, and ends with 0 (linearizable), 1 (not) or 2 (neither was
// found out: too little time, too many unknown outcomes, or a file that is no history).
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

type result struct {
	Verdict    string   `json:"verdict"`
	Operations int      `json:"operations"`
	Keys       int      `json:"keys"`
	Unknown    int      `json:"unknown"`
	Open       int      `json:"open"`
	Seconds    float64  `json:"seconds"`
	Bad        []string `json:"bad"`
	Pages      []string `json:"pages"`
}

// check judges all keys, each within the time that is left; a page is written for each that has no order.
func check(keys map[string][]line, timeout time.Duration, mostOpen int, folder string) (result, error) {
	began := time.Now()
	total := result{Verdict: string(porcupine.Ok), Keys: len(keys), Bad: []string{}, Pages: []string{}}
	names := make([]string, 0, len(keys))
	for name := range keys {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		history, open := operations(keys[name])
		total.Operations += len(keys[name])
		total.Open += open
		for _, l := range keys[name] {
			if l.unknown() {
				total.Unknown++
			}
		}
		if open > mostOpen {
			return total, fmt.Errorf("key %s: %d deletes without a known outcome, more than %d", name, open, mostOpen)
		}
		left := max(timeout-time.Since(began), time.Millisecond)
		verdict := porcupine.CheckOperationsTimeout(model, history, left)
		if verdict == porcupine.Unknown && total.Verdict == string(porcupine.Ok) {
			total.Verdict = string(verdict)
		}
		if verdict == porcupine.Illegal {
			total.Verdict = string(verdict)
			total.Bad = append(total.Bad, name)
			if folder == "" {
				continue
			}
			page, err := draw(history, name, folder)
			if err != nil {
				return total, err
			}
			total.Pages = append(total.Pages, page)
		}
	}
	total.Seconds = time.Since(began).Seconds()
	return total, nil
}

// draw writes porcupine's page of the history of the key “name“, with the longest order that there is.
func draw(history []porcupine.Operation, name, folder string) (string, error) {
	_, info := porcupine.CheckOperationsVerbose(model, history, time.Minute)
	page := filepath.Join(folder, strings.NewReplacer("/", "-").Replace(name)+".html")
	file, err := os.Create(page)
	if err != nil {
		return "", err
	}
	defer file.Close()
	return page, porcupine.Visualize(model, info, file)
}

func main() {
	timeout := flag.Duration("timeout", time.Minute, "how long to look for an order, over all keys")
	mostOpen := flag.Int("open", 12, "the most deletes of one key whose outcome is unknown")
	folder := flag.String("pages", "", "the folder for a page of each history that has no order")
	flag.Parse()
	os.Exit(run(flag.Arg(0), *timeout, *mostOpen, *folder))
}

func run(path string, timeout time.Duration, mostOpen int, folder string) int {
	file, err := os.Open(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	defer file.Close()
	keys, err := readHistory(file)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	total, err := check(keys, timeout, mostOpen, folder)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if err := json.NewEncoder(os.Stdout).Encode(total); err != nil {
		return 2
	}
	return map[string]int{"Ok": 0, "Illegal": 1, "Unknown": 2}[total.Verdict]
}
