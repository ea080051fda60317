package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"sort"

	"github.com/anishathalye/porcupine"
)

// line is one operation of a history, as JSON. Times are nanoseconds of one monotonic clock. A return of 0 means that the
// outcome is unknown: the operation may have taken effect at any time since its call, may yet do so, or never.
type line struct {
	Client  int     `json:"client"`
	Key     string  `json:"key"`
	Kind    string  `json:"kind"`
	Updated int64   `json:"updated"`
	Content string  `json:"content"`
	Found   *string `json:"found"`
	Call    int64   `json:"call"`
	Return  int64   `json:"return"`
}

func (l line) unknown() bool { return l.Return == 0 }

func readHistory(in io.Reader) (map[string][]line, error) {
	keys := map[string][]line{}
	scanner := bufio.NewScanner(in)
	scanner.Buffer(make([]byte, 1<<20), 1<<26)
	for number := 1; scanner.Scan(); number++ {
		var l line
		if err := json.Unmarshal(scanner.Bytes(), &l); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if l.Kind != "save" && l.Kind != "load" && l.Kind != "delete" {
			return nil, fmt.Errorf("line %d: a kind that this program does not know: %q", number, l.Kind)
		}
		keys[l.Key] = append(keys[l.Key], l)
	}
	return keys, scanner.Err()
}

// operations returns the history of one key as porcupine takes it, and how many unknown outcomes stay open in it.
//
// An unknown save whose content no load returned is left out: as nothing saw it, whatever replaced it would have replaced
// what was there without it, too, so that the rest of the history has an order with it exactly if it has one without.
// An unknown save whose content a load returned did take effect, before that load returned. So only unknown deletes are
// operations without an end, each of which doubles what there is to try.
func operations(lines []line) (found []porcupine.Operation, open int) {
	seen := map[string]int64{}
	for _, l := range lines {
		if l.Kind == "load" && l.Found != nil {
			if earliest, ok := seen[*l.Found]; !ok || l.Return < earliest {
				seen[*l.Found] = l.Return
			}
		}
	}
	for _, l := range lines {
		ends := l.Return
		if l.unknown() && l.Kind == "load" {
			continue // it changed nothing and told nothing
		}
		if l.unknown() && l.Kind == "save" {
			earliest, ok := seen[l.Content]
			if !ok || earliest < l.Call {
				continue
			}
			ends = earliest
		} else if l.unknown() {
			ends = math.MaxInt64
			open++
		}
		out := reply{unknown: l.unknown()}
		if l.Found != nil {
			out.found, out.content = true, *l.Found
		}
		found = append(found, porcupine.Operation{
			ClientId: l.Client,
			Input:    request{l.Kind, l.Updated, l.Content},
			Call:     l.Call,
			Output:   out,
			Return:   ends,
		})
	}
	sort.SliceStable(found, func(a, b int) bool { return found[a].Call < found[b].Call })
	return found, open
}
