package iomappeer

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
)

// A Message is one packet, as it passed.
type Message struct {
	Seq    uint64
	To     bool   // to the server
	Op     uint32 // opcode of the request, or of the one that is answered
	Unique uint64
	Node   uint64
	Notify int32         // code of a notification
	Error  int32         // of a reply
	Errno  syscall.Errno // the kernel's verdict about a reply or notification
	Data   []byte        // the packet

	prof Profile
	note string // an event that is no message
}

func (m Message) String() string {
	if m.note != "" {
		return fmt.Sprintf("%d: %s", m.Seq, m.note)
	}
	verdict := ""
	if m.Errno != 0 {
		verdict = fmt.Sprintf(" => %s", m.Errno)
	}
	switch {
	case m.To:
		return fmt.Sprintf("%d: -> %d %s node %d%s", m.Seq, m.Unique, OpName(m.Op), m.Node, m.body())
	case m.Notify != 0:
		return fmt.Sprintf("%d: <- notify %s%s%s", m.Seq, notifyName(m.Notify), m.body(), verdict)
	default:
		return fmt.Sprintf("%d: <- %d %s error %d%s%s", m.Seq, m.Unique, OpName(m.Op), m.Error, m.body(), verdict)
	}
}

func notifyName(code int32) string {
	switch code {
	case notifyBackingInval:
		return "BACKING_INVAL"
	case notifyPrune:
		return "PRUNE"
	case notifyUpsert:
		return "UPSERT_MAPPINGS"
	case notifyInval:
		return "INVAL_MAPPINGS"
	}
	return fmt.Sprintf("notify %d", code)
}

// body shows what an iomap message says.
func (m Message) body() string {
	if m.To {
		b := m.Data[min(len(m.Data), inHeaderSize):]
		switch m.Op {
		case opIomapBegin:
			var v beginIn
			dec(b, &v)
			return fmt.Sprintf(" %v pos %d count %d", m.prof.opFromWire(v.Opflags), v.Pos, v.Count)
		case opIomapEnd:
			var v endIn
			dec(b, &v)
			m.prof.decMapping(&v.Map)
			return fmt.Sprintf(" %v pos %d count %d written %d map %v", m.prof.opFromWire(v.Opflags), v.Pos, v.Count,
				v.Written, v.Map)
		case opIomapIOEnd:
			var v ioendIn
			dec(b, &v)
			return fmt.Sprintf(" flags %#x error %d pos %d written %d addr %#x dev %d", v.Flags, v.Error, v.Pos, v.Written,
				v.NewAddr, v.Dev)
		case opSetattr:
			var v setattrIn
			dec(b, &v)
			return fmt.Sprintf(" valid %#x size %d mode %o", v.Valid, v.Size, v.Mode)
		case opFallocate:
			var v fallocateIn
			dec(b, &v)
			return fmt.Sprintf(" mode %#x offset %d length %d", v.Mode, v.Offset, v.Length)
		case opLookup, opUnlink, opRmdir:
			return " " + strings.TrimRight(string(b), "\x00")
		case opCreate:
			var v createIn
			b, _ = dec(b, &v)
			return fmt.Sprintf(" %s mode %o", strings.TrimRight(string(b), "\x00"), v.Mode)
		}
		return ""
	}
	b := m.Data[min(len(m.Data), outHeaderSize):]
	switch {
	case m.Notify == notifyUpsert:
		var v upsertOut
		if _, ok := dec(b, &v); ok {
			m.prof.decMapping(&v.Read)
			m.prof.decMapping(&v.Write)
			return fmt.Sprintf(" node %d read %v write %v", v.NodeID, v.Read, v.Write)
		}
	case m.Notify == notifyInval:
		var v invalOut
		if _, ok := dec(b, &v); ok {
			return fmt.Sprintf(" node %d read [%d,+%d) write [%d,+%d)", v.NodeID, v.Read.Offset, v.Read.Length,
				v.Write.Offset, v.Write.Length)
		}
	case m.Notify == notifyBackingInval:
		var v backingInvalOut
		if _, ok := dec(b, &v); ok {
			return fmt.Sprintf(" dev %d [%d,+%d)", v.Dev, v.Range.Offset, v.Range.Length)
		}
	case m.Op == opIomapBegin && m.Error == 0:
		var v beginOut
		if _, ok := dec(b, &v); ok {
			m.prof.decMapping(&v.Read)
			m.prof.decMapping(&v.Write)
			return fmt.Sprintf(" read %v write %v", v.Read, v.Write)
		}
	case m.Op == opIomapIOEnd && m.Error == 0:
		var v ioendOut
		if _, ok := dec(b, &v); ok {
			return fmt.Sprintf(" newsize %d", v.NewSize)
		}
	}
	return ""
}

const (
	traceRing = 2048 // messages that are remembered
	traceShow = 120  // and shown with a violation, at most
	traceKeep = 256  // bytes of each
)

type tracer struct {
	mu   sync.Mutex
	seq  uint64
	ring [traceRing]Message
}

func (k *Kernel) trace(m Message) {
	m.prof = k.prof
	tr := &k.checks.tracer
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.seq++
	m.Seq = tr.seq
	if k.cfg.Trace != nil {
		k.cfg.Trace(m)
	}
	if len(m.Data) > traceKeep {
		m.Data = m.Data[:traceKeep]
	}
	tr.ring[m.Seq%traceRing] = m
}

// event puts what is no message into the trace.
func (k *Kernel) event(in *Inode, format string, args ...any) {
	m := Message{note: fmt.Sprintf(format, args...)}
	if in != nil {
		m.Node = in.nodeid
	}
	k.trace(m)
}

// history returns the last messages about a node, or about all if it is 0.
func (tr *tracer) history(node uint64) []string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	var out []string
	for i := tr.seq; i > 0 && i+traceRing > tr.seq && len(out) < traceShow; i-- {
		m := tr.ring[i%traceRing]
		if m.Seq == i && (node == 0 || m.Node == node || m.Node == 0) {
			out = append(out, m.String())
		}
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out
}
