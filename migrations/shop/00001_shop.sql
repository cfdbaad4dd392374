-- +goose Up
CREATE TABLE users (
    id            uuid PRIMARY KEY,
    email         text NOT NULL CHECK (octet_length(email) <= 254),
    name          text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
    password_hash text NOT NULL,
    signup_event_id uuid NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX users_email_key ON users (lower(email));

CREATE TABLE sessions (
    -- SHA-256 of the token: what is stored lets nobody in.
    token_hash bytea PRIMARY KEY CHECK (octet_length(token_hash) = 32),
    user_id    uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX sessions_user_id_idx ON sessions (user_id);
CREATE INDEX sessions_expires_at_idx ON sessions (expires_at);

-- The trial that billing starts. One row a user; a second start is refused by the primary key, loudly.
CREATE TABLE subscriptions (
    user_id       uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    plan          text NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    trial_ends_at timestamptz NOT NULL
);

CREATE TABLE products (
    sku      text PRIMARY KEY CHECK (sku ~ '^[a-z0-9][a-z0-9-]{0,63}$'),
    name     text NOT NULL,
    price    bigint NOT NULL CHECK (price > 0),
    currency text NOT NULL DEFAULT 'EUR' CHECK (currency ~ '^[A-Z]{3}$'),
    -- On the shelf, the reserved ones included.
    stock    integer NOT NULL CHECK (stock >= 0),
    reserved integer NOT NULL DEFAULT 0 CHECK (reserved BETWEEN 0 AND stock)
);

CREATE TABLE carts (
    id         uuid PRIMARY KEY,
    user_id    uuid NOT NULL REFERENCES users (id),
    version    integer NOT NULL DEFAULT 1,
    state      text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'checked_out')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX carts_user_id_idx ON carts (user_id);

CREATE TABLE cart_items (
    cart_id  uuid NOT NULL REFERENCES carts (id) ON DELETE CASCADE,
    sku      text NOT NULL REFERENCES products (sku),
    quantity integer NOT NULL CHECK (quantity BETWEEN 1 AND 1000),
    PRIMARY KEY (cart_id, sku)
);

-- The read model that cart-history keeps: one row per event of a cart.
CREATE TABLE cart_history (
    cart_id    uuid NOT NULL,
    version    integer NOT NULL,
    event_id   uuid NOT NULL,
    type       text NOT NULL,
    line       jsonb NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (cart_id, version)
);

CREATE TABLE orders (
    id              uuid PRIMARY KEY,
    cart_id         uuid NOT NULL UNIQUE REFERENCES carts (id),
    user_id         uuid NOT NULL REFERENCES users (id),
    status          text NOT NULL DEFAULT 'processing' CHECK (status IN ('processing', 'paid', 'payment_failed')),
    amount          bigint NOT NULL CHECK (amount > 0),
    currency        text NOT NULL,
    -- [{"sku":…,"name":…,"quantity":…,"unit_price":{"amount":…,"currency":…}}], as they were at checkout.
    lines           jsonb NOT NULL,
    payment_method  text NOT NULL,
    failure_reason  text,
    checkout_event_id uuid NOT NULL,
    stock_state     text NOT NULL DEFAULT 'reserved' CHECK (stock_state IN ('reserved', 'sold', 'returned')),
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    settled_at      timestamptz
);
CREATE INDEX orders_user_idx ON orders (user_id, created_at DESC, id DESC);

-- What we know of each charge at the provider. The intent's id is committed before it is confirmed, so that an
-- attempt after an unknown outcome asks about that intent and never makes a second one.
CREATE TABLE payments (
    order_id        uuid PRIMARY KEY REFERENCES orders (id),
    -- The event id of the checkout: the provider's idempotency key.
    idempotency_key uuid NOT NULL UNIQUE,
    intent_id       text UNIQUE,
    state           text NOT NULL DEFAULT 'creating' CHECK (state IN ('creating', 'created', 'succeeded', 'declined')),
    amount          bigint NOT NULL,
    currency        text NOT NULL,
    reason          text,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Mails that were handed to the SMTP server. Mail is at least once; a row is written when it was accepted.
CREATE TABLE emails (
    event_id   uuid NOT NULL,
    kind       text NOT NULL CHECK (kind IN ('welcome', 'receipt')),
    user_id    uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    message_id text NOT NULL,
    sent_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (event_id, kind)
);
CREATE INDEX emails_user_id_idx ON emails (user_id, kind);

-- First answers, kept for 24 hours. The row is written in the transaction of the state it answers for.
CREATE TABLE idempotency_keys (
    -- SHA-256 over caller, route and key; the key itself is not kept.
    id          bytea PRIMARY KEY CHECK (octet_length(id) = 32),
    -- HMAC-SHA-256 of the body under the key the client sent.
    body_mac    bytea NOT NULL CHECK (octet_length(body_mac) = 32),
    status      integer NOT NULL,
    -- json and not jsonb: the answer is given again as it was, to the byte.
    body        json NOT NULL,
    -- A repeated answer is given only after a transaction that wrote and committed: it bumps this.
    replays     integer NOT NULL DEFAULT 0,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at);

-- The built-in payment sandbox: a provider of its own, with its own ledger, which no transaction of the shop touches.
CREATE SCHEMA sandbox;
CREATE TABLE sandbox.mode (one boolean PRIMARY KEY DEFAULT true CHECK (one), outage boolean NOT NULL DEFAULT false);
INSERT INTO sandbox.mode DEFAULT VALUES;
CREATE TABLE sandbox.intents (
    id              text PRIMARY KEY,
    idempotency_key text NOT NULL UNIQUE,
    amount          bigint NOT NULL CHECK (amount > 0),
    currency        text NOT NULL,
    method          text NOT NULL,
    metadata        jsonb NOT NULL DEFAULT '{}',
    status          text NOT NULL DEFAULT 'requires_confirmation'
                    CHECK (status IN ('requires_confirmation', 'succeeded', 'declined')),
    decline_code    text,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
-- Money that moved. No unique key: a second charge of one intent must show here, not be hidden.
CREATE TABLE sandbox.charges (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    intent_id  text NOT NULL REFERENCES sandbox.intents (id),
    amount     bigint NOT NULL,
    currency   text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

INSERT INTO products (sku, name, price, stock) VALUES
    ('espresso-beans', 'Espresso beans, 1 kg', 1899, 100000),
    ('filter-beans', 'Filter beans, 500 g', 1299, 100000),
    ('hand-grinder', 'Hand grinder', 8900, 100000),
    ('paper-filters', 'Paper filters, 100', 499, 100000),
    ('moka-pot', 'Moka pot, the last three', 3450, 3);

-- +goose Down
DROP TABLE sandbox.charges, sandbox.intents, sandbox.mode;
DROP SCHEMA sandbox;
DROP TABLE idempotency_keys, emails, payments, orders, cart_history, cart_items, carts, products, subscriptions, sessions, users;
