package main

import (
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// written makes a history out of short lines: client, kind, updatedAt, content, call and return; "-" is nothing.
func written(t *testing.T, text string) map[string][]line {
	t.Helper()
	keys := map[string][]line{}
	for _, words := range strings.Split(strings.TrimSpace(text), "\n") {
		var l line
		var content string
		if _, err := fmt.Sscan(words, &l.Client, &l.Kind, &l.Updated, &content, &l.Call, &l.Return); err != nil {
			t.Fatal(words, err)
		}
		if l.Kind == "load" && content != "-" {
			l.Found = &content
		} else if l.Kind == "save" {
			l.Content = content
		}
		keys["key"] = append(keys["key"], l)
	}
	return keys
}

func TestHistories(t *testing.T) {
	for name, c := range map[string]struct{ verdict, text string }{
		"a stale read": {"Illegal", `
			0 save 1 a  1  2
			0 save 2 b  3  4
			1 load 0 a  5  6`},
		"a lost update": {"Illegal", `
			0 save 1 a  1  2
			1 load 0 -  3  4`},
		"an update that was seen and then lost": {"Illegal", `
			0 save 1 a  1  2
			0 save 2 b  3 20
			1 load 0 b  5  6
			2 load 0 a  7  8`},
		"resurrected after a delete": {"Illegal", `
			0 save 1 a  1  2
			0 delete 0 - 3 4
			1 load 0 -  5  6
			1 load 0 a  7  8`},
		"a delete without effect": {"Illegal", `
			0 save 1 a  1  2
			0 delete 0 - 3 4
			1 load 0 a  5  6`},
		"an older save that won": {"Illegal", `
			0 save 5 a  1  2
			1 save 4 b  3  4
			1 load 0 b  5  6`},
		"an equal updatedAt that did not replace": {"Illegal", `
			0 save 5 a  1  2
			1 save 5 b  3  4
			1 load 0 a  5  6`},
		"a content that nobody saved": {"Illegal", `
			0 save 5 a  1  2
			1 load 0 x  3  4`},
		"a content that was saved only later": {"Illegal", `
			1 load 0 a  1  2
			0 save 5 a  3  4`},
		"an unknown save that was seen and then was not there": {"Illegal", `
			0 save 1 a  1  2
			0 save 2 b  3  0
			1 load 0 b  5  6
			1 load 0 a  7  8`},
		"two readers who disagree": {"Illegal", `
			0 save 1 a  1 20
			1 save 1 b  1 20
			2 load 0 a  2  3
			3 load 0 b  4  5
			2 load 0 a  6  7`},
		"saves one after the other": {"Ok", `
			0 save 1 a  1  2
			0 save 2 b  3  4
			1 load 0 b  5  6
			0 save 1 c  7  8
			1 load 0 b  9 10
			0 save 2 d 11 12
			1 load 0 d 13 14`},
		"an older save after a delete": {"Ok", `
			0 save 5 a  1  2
			0 delete 0 - 3 4
			0 save 1 b  5  6
			1 load 0 b  7  8`},
		"reads during a save": {"Ok", `
			0 save 1 a  1  2
			0 save 2 b  3 20
			1 load 0 a  4  5
			2 load 0 b  6  7`},
		"an unknown save that came late": {"Ok", `
			0 save 1 a  1  2
			0 save 2 b  3  0
			1 load 0 a  5  6
			1 load 0 b  7  8`},
		"an unknown save that never came": {"Ok", `
			0 save 1 a  1  2
			0 save 2 b  3  0
			1 load 0 a  5  6
			0 save 1 c  7  8
			1 load 0 c  9 10`},
		"an unknown delete that came late": {"Ok", `
			0 save 1 a  1  2
			0 delete 0 - 3 0
			1 load 0 a  5  6
			1 load 0 -  7  8`},
		"an unknown delete that came before a save": {"Ok", `
			0 save 5 a  1  2
			0 delete 0 - 3 0
			0 save 1 b  5  6
			1 load 0 b  7  8`},
		"an unknown load": {"Ok", `
			0 save 5 a  1  2
			0 load 0 -  3  0`},
	} {
		t.Run(name, func(t *testing.T) {
			total, err := check(written(t, c.text), time.Minute, 12, t.TempDir())
			if err != nil || total.Verdict != c.verdict {
				t.Fatal(total, err)
			}
			if c.verdict == "Illegal" {
				if page, err := os.ReadFile(total.Pages[0]); err != nil || !strings.Contains(string(page), "<html") {
					t.Fatal("no page", err)
				}
			}
		})
	}
}

// simulated makes the history of a register that is right: up to 16 clients, each operation at one moment of its own.
func simulated(seed int64, operations int) []line {
	random := rand.New(rand.NewSource(seed))
	free, state := make([]int64, 16), register{}
	var found []line
	for number := 0; number < operations; number++ {
		moment := int64(number+1) * 100
		client := random.Intn(len(free))
		call := max(free[client]+1, moment-random.Int63n(900))
		if call > moment {
			continue
		}
		l := line{Client: client, Key: "k", Call: call, Return: moment + random.Int63n(900)}
		l.Kind = []string{"save", "save", "load", "load", "delete"}[random.Intn(5)]
		free[client] = l.Return
		l.Updated, l.Content = random.Int63n(9)+int64(number/10), fmt.Sprint("c", number)
		if l.Kind == "load" {
			l.Content = ""
			if held := state.content; state.present {
				l.Found = &held
			}
		} else if random.Intn(100) == 0 && (l.Kind == "save" || random.Intn(20) == 0) {
			l.Return = 0
			if random.Intn(2) == 0 {
				found = append(found, l)
				continue
			}
		}
		if l.Kind != "load" {
			_, after := step(state, request{l.Kind, l.Updated, l.Content}, reply{})
			state = after.(register)
		}
		found = append(found, l)
	}
	return found
}

func TestLongHistories(t *testing.T) {
	for seed := int64(0); seed < 6; seed++ {
		lines := simulated(seed, 2000)
		total, err := check(map[string][]line{"k": lines}, time.Minute, 12, "")
		if err != nil || total.Verdict != "Ok" {
			t.Fatal(seed, total, err)
		}
		last := len(lines) - 1
		for ; lines[last].Kind != "load" || lines[last].Found == nil; last-- {
		}
		wrong := "c0x"
		lines[last].Found = &wrong
		total, err = check(map[string][]line{"k": lines}, time.Minute, 12, "")
		if err != nil || total.Verdict != "Illegal" {
			t.Fatal(seed, "a wrong load among thousands", total, err)
		}
	}
}

func TestWhatIsNoHistoryOrCannotBeJudged(t *testing.T) {
	many := strings.Repeat("0 delete 0 - 3 0\n", 13)
	if _, err := check(written(t, many), time.Minute, 12, ""); err == nil {
		t.Fatal("13 open deletes were tried")
	}
	path := filepath.Join(t.TempDir(), "history")
	for text, status := range map[string]int{"{": 2, `{"kind":"swap"}`: 2, "": 0, `{"key":"k","kind":"delete","call":1,"return":2}`: 0} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := run(path, time.Minute, 12, ""); got != status {
			t.Fatal(text, got)
		}
	}
	if got := run(path+"x", time.Minute, 12, ""); got != 2 {
		t.Fatal(got)
	}
}
