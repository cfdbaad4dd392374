package main

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/outbox"
)

const tables = `
CREATE TABLE IF NOT EXISTS notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, notebook text NOT NULL, text text NOT NULL);
CREATE TABLE IF NOT EXISTS notebooks (name text PRIMARY KEY, notes integer NOT NULL DEFAULT 0);
INSERT INTO notebooks VALUES ('inbox') ON CONFLICT DO NOTHING;`

type app struct{ pool *pgxpool.Pool }

type note struct {
	Notebook string `json:"notebook"`
	Text     string `json:"text"`
}

func (a app) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /notes", func(w http.ResponseWriter, r *http.Request) {
		var n note
		if err := json.NewDecoder(r.Body).Decode(&n); err != nil || n.Notebook == "" {
			http.Error(w, "a note is {\"notebook\":…,\"text\":…}", http.StatusBadRequest)
			return
		}
		answer(w, http.StatusCreated, n, a.take(r.Context(), n))
	})
	mux.HandleFunc("GET /notebooks", func(w http.ResponseWriter, r *http.Request) {
		counts, err := a.notebooks(r.Context())
		answer(w, http.StatusOK, counts, err)
	})
	mux.HandleFunc("PUT /notebooks/{name}", func(w http.ResponseWriter, r *http.Request) {
		_, err := a.pool.Exec(r.Context(), `INSERT INTO notebooks VALUES ($1) ON CONFLICT DO NOTHING`, r.PathValue("name"))
		answer(w, http.StatusOK, r.PathValue("name"), err)
	})
	return mux
}

// take writes a note down, and that it was taken: both, or neither.
func (a app) take(ctx context.Context, n note) error {
	return outbox.InTx(ctx, a.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO notes (notebook, text) VALUES ($1, $2)`, n.Notebook, n.Text); err != nil {
			return err
		}
		_, err := schema.Append(ctx, tx, outbox.Event{Type: "note.taken", Key: n.Notebook, Data: n})
		return err
	})
}

// notebooks returns how many notes each notebook has.
func (a app) notebooks(ctx context.Context) (map[string]int, error) {
	rows, err := a.pool.Query(ctx, `SELECT name, notes FROM notebooks`)
	if err != nil {
		return nil, err
	}
	counts := map[string]int{}
	var name string
	var notes int
	_, err = pgx.ForEachRow(rows, []any{&name, &notes}, func() error {
		counts[name] = notes
		return nil
	})
	return counts, err
}

func answer(w http.ResponseWriter, status int, body any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
