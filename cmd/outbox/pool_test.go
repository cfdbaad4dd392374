package main

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// A pooler refuses settings and loses what was prepared; what the URL says goes before what the variable does.
func TestPoolConfig(t *testing.T) {
	t.Parallel()
	const url = "postgres://u:p@127.0.0.1:1/x?pool_max_conns=7"
	direct, err := poolConfig(url, false)
	require.NoError(t, err)
	require.Equal(t, pgx.QueryExecModeCacheStatement, direct.ConnConfig.DefaultQueryExecMode)
	require.Equal(t, "30s", direct.ConnConfig.RuntimeParams["statement_timeout"])
	require.EqualValues(t, 7, direct.MaxConns)

	pooled, err := poolConfig(url, true)
	require.NoError(t, err)
	require.Equal(t, pgx.QueryExecModeCacheDescribe, pooled.ConnConfig.DefaultQueryExecMode)
	require.Equal(t, map[string]string{"application_name": "pgoutbox"}, pooled.ConnConfig.RuntimeParams)

	said, err := poolConfig(url+"&default_query_exec_mode=cache_statement&statement_timeout=9s", true)
	require.NoError(t, err)
	require.Equal(t, pgx.QueryExecModeCacheStatement, said.ConnConfig.DefaultQueryExecMode)
	require.Equal(t, "9s", said.ConnConfig.RuntimeParams["statement_timeout"])

	for _, mode := range []string{"exec", "simple_protocol"} {
		_, err := poolConfig(url+"&default_query_exec_mode="+mode, false)
		require.ErrorContains(t, err, "cache_describe")
	}
}
