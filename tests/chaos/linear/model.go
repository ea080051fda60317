package main

import (
	"fmt"
	"hash/fnv"

	"github.com/anishathalye/porcupine"
)

// register is what a store holds for one key, a tenant's id.
type register struct {
	present bool
	updated int64
	content string
}

// request is what a client asked; reply is what it learnt.
type request struct {
	kind    string
	updated int64
	content string
}

type reply struct {
	unknown bool
	found   bool
	content string
}

// step applies one operation (protocol: newer wins, an equal updatedAt replaces, a delete of nothing is fine).
func step(before, in, out interface{}) (bool, interface{}) {
	state, asked, learnt := before.(register), in.(request), out.(reply)
	switch asked.kind {
	case "save":
		if state.present && asked.updated < state.updated {
			return true, state
		}
		return true, register{true, asked.updated, asked.content}
	case "delete":
		return true, register{}
	default:
		return learnt.found == state.present && learnt.content == state.content, state
	}
}

func hash(state interface{}) uint64 {
	held := state.(register)
	sum := fnv.New64a()
	fmt.Fprintf(sum, "%v %d %s", held.present, held.updated, held.content)
	return sum.Sum64()
}

func describe(in, out interface{}) string {
	asked, learnt := in.(request), out.(reply)
	ending := ""
	if learnt.unknown {
		ending = " -> unknown"
	}
	switch asked.kind {
	case "save":
		return fmt.Sprintf("save %s at %d%s", asked.content, asked.updated, ending)
	case "delete":
		return "delete" + ending
	default:
		if !learnt.found {
			return "load -> none"
		}
		return "load -> " + learnt.content
	}
}

func describeState(state interface{}) string {
	held := state.(register)
	if !held.present {
		return "none"
	}
	return fmt.Sprintf("%s at %d", held.content, held.updated)
}

var model = porcupine.Model{
	Init:              func() interface{} { return register{} },
	Step:              step,
	Equal:             func(one, other interface{}) bool { return one == other },
	Hash:              hash,
	DescribeOperation: describe,
	DescribeState:     describeState,
}
