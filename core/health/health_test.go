package health_test

import (
	"testing"

	"github.com/k3m-io/k3m/core/health"
)

func TestBoardKeepsTheLatestConditionInOrder(t *testing.T) {
	b := health.NewBoard()
	b.Set(health.Condition{Part: "datastore", State: health.Working, Message: "checking the file"})
	b.Set(health.Condition{Part: "API", State: health.Waiting, Message: "waits for the datastore"})
	began := b.Conditions()[0].Since
	b.Set(health.Condition{Part: "datastore", State: health.Working, Message: "opening the file"})

	got := b.Conditions()
	if len(got) != 2 || got[0].Part != "datastore" || got[1].Part != "API" {
		t.Fatalf("conditions: %v", got)
	}
	if got[0].Message != "opening the file" || !got[0].Since.Equal(began) {
		t.Errorf("the state has not changed, so only the message should: %v, began %v", got[0], began)
	}
	b.Remove("datastore")
	if got := b.Conditions(); len(got) != 1 || got[0].Part != "API" {
		t.Errorf("after Remove: %v", got)
	}
}

func TestBoardWakesOnlyForChanges(t *testing.T) {
	b := health.NewBoard()
	ok := health.Condition{Part: "datastore", State: health.OK}
	changed := b.Changed()
	b.Set(ok)
	select {
	case <-changed:
	default:
		t.Error("the first condition woke nobody")
	}
	changed = b.Changed()
	b.Set(ok)
	select {
	case <-changed:
		t.Error("the same condition again woke a reader")
	default:
	}
}

func TestPartsWithoutABoardSayNothing(t *testing.T) {
	var b *health.Board
	b.Set(health.Condition{Part: "datastore", State: health.OK})
	b.Remove("datastore")
}
