-- One of everything that a dump can hold.
create schema "Größe; drop";
comment on schema "Größe; drop" is 'it''s a "comment" – €';
create schema shop;
create type shop.state as enum ('new', 'paid', 'it''s sent');
create domain shop.email as text check (value ~ '@');
create type shop.point as (x int, y numeric(8, 3));
create type shop.floatrange as range (subtype = float8, subtype_diff = float8mi);
create collation shop.plain (locale = 'C');
create sequence shop.numbers start 1000 increment 7 cycle maxvalue 100000;
select nextval('shop.numbers'), nextval('shop.numbers');

create function shop.double(int) returns int language sql immutable as 'select $1 * 2';
create function shop.touch() returns trigger language plpgsql as $$
begin new.note := coalesce(new.note, '') || ' touched'; return new; end $$;
create procedure shop.nothing() language plpgsql as $$ begin null; end $$;
create aggregate shop.total (int) (sfunc = int4pl, stype = int, initcond = '0');

create table shop.everything (
    id bigint generated always as identity (start 5 increment 3) primary key,
    serial smallserial, flag boolean, tiny smallint, whole int, big bigint,
    price numeric(20, 5), anynum numeric, small real, large double precision, cash money,
    word varchar(40), fixed char(7), note text collate shop.plain, raw bytea, bits bit(5), varbits bit varying,
    day date, clock time, clockz timetz, stamp timestamp, stampz timestamptz, span interval,
    uid uuid, j json, jb jsonb, x xml, ip inet, net cidr, mac macaddr, mac8 macaddr8,
    pt point, ln line, seg lseg, bx box, pth path, poly polygon, circ circle,
    vec tsvector, que tsquery, lsn pg_lsn, nums int[], grid text[][], states shop.state[],
    mail shop.email, place shop.point, r4 int4range, rts tstzrange, many int4multirange, rf shop.floatrange,
    state shop.state not null default 'new',
    doubled int generated always as (whole * 2) stored
);
comment on column shop.everything.raw is E'bytes\nin two lines';
insert into shop.everything (flag, tiny, whole, big, price, anynum, small, large, cash, word, fixed, note, raw,
    bits, varbits, day, clock, clockz, stamp, stampz, span, uid, j, jb, ip, net, mac, mac8, pt, ln, seg, bx,
    pth, poly, circ, vec, que, lsn, nums, grid, states, mail, place, r4, rts, many, rf, state)
select n % 2 = 0, n % 30000, n, 9223372036854775807 - n, n * 1.23457, 'NaN', n / 3.0, 'Infinity', n::text::money,
    'wörd ' || n, 'f', case when n % 7 = 0 then null else E'line\n\t"ü" \\ ''' || n end,
    decode(md5(n::text) || '00ff', 'hex'), B'10101', B'1' , date '0044-03-15 BC' + n, '23:59:60', '04:05:06-08',
    timestamp '2026-11-21 02:00' + n * interval '1 minute', timestamptz 'infinity', interval '1 year -2 days 3.5 seconds',
    md5(n::text)::uuid, '{"b": 1, "a":  [1, null], "b": 2}', jsonb_build_object('n', n, 'ü', null), '::1', '10.0.0.0/8',
    '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', point(n, -n), '{1,2,3}', '[(0,0),(1,1)]', '((0,0),(1,1))',
    '[(0,0),(1,1)]', '((0,0),(1,1),(2,0))', '<(0,0),5>', to_tsvector('simple', 'the cat ' || n), 'cat & !dog',
    '16/B374D848', array[n, null], array[['a', 'b'], ['c,"', '{}']], '{new,paid}', 'a' || n || '@b.c', row(n, 1.5)::shop.point,
    int4range(n, n + 5), tstzrange('2026-01-01', null), '{[1,3),[7,9)}', '[1.5,2.5]', 'it''s sent'
from generate_series(1, 3000) n;
insert into shop.everything default values;
do $$ begin
    update shop.everything set x = xmlparse(content '<ü a="1">&lt;' || id || '</ü>') where id % 2 = 0;
exception when feature_not_supported then -- a server without libxml
end $$;
create index everything_partial on shop.everything (stampz desc, lower(word)) where flag;
create index everything_gin on shop.everything using gin (jb jsonb_path_ops);
create statistics shop.related (dependencies) on tiny, whole from shop.everything;
create trigger touch before update on shop.everything for each row execute function shop.touch();
alter table shop.everything disable trigger touch;

create table "Größe; drop"."Ünï ""quoted"" name $1" (
    "select" int references shop.everything (id) on delete cascade deferrable initially deferred,
    "with space" text unique, exclude using gist (r with &&), r int4range
);
insert into "Größe; drop"."Ünï ""quoted"" name $1"
select id, E'\\.' || id, int4range(id::int * 10, id::int * 10 + 5) from shop.everything order by id limit 500;
create table public.empty ();
create table public.nocolumns_but_rows ();
insert into public.nocolumns_but_rows default values;

create table shop.measures (at timestamptz not null, city text, value float8, primary key (at, city)) partition by range (at);
create table shop.measures_2025 partition of shop.measures for values from ('2025-01-01') to ('2026-01-01');
create table shop.measures_2026 partition of shop.measures for values from ('2026-01-01') to ('2027-01-01') partition by list (city);
create table shop.measures_2026_x partition of shop.measures_2026 for values in ('x', 'y');
create table shop.measures_2026_rest partition of shop.measures_2026 default;
insert into shop.measures select timestamptz '2025-06-01' + n * interval '6 hours', chr(120 + n % 3), n from generate_series(1, 2000) n;
create table shop.parent (a int);
create table shop.child (b int) inherits (shop.parent);
insert into shop.parent values (1);
insert into shop.child values (2, 3);
create unlogged table shop.fleeting as select 1 as one;

create view shop.open as select * from shop.everything where state = 'new' with local check option;
create materialized view shop.sums as select state, sum(whole) from shop.everything group by state;
create unique index on shop.sums (state);
create materialized view shop.unfilled as select 1 as one with no data;
create rule quiet as on delete to shop.child do instead nothing;

create table shop.secrets (owner name default current_user, what text);
insert into shop.secrets values ('nobody', 'hidden'), ('postgres', 'mine');
alter table shop.secrets enable row level security;
create policy own on shop.secrets using (owner = current_user) with check (owner = current_user);
alter table shop.secrets force row level security;

create foreign data wrapper nowhere;
create server far foreign data wrapper nowhere;
create foreign table shop.far (id int) server far;
create publication news for table shop.everything;

select lo_from_bytea(4711, decode(repeat('deadbeef', 100000), 'hex')), lo_from_bytea(4712, '');
comment on large object 4711 is 'large';
do $$
declare name text;
begin
    for name in select e.name from pg_available_extensions e where e.name in ('pgcrypto', 'vector', 'hstore') loop
        execute format('create extension %I schema public', name);
    end loop;
end $$;
-- A few MiB, so that a backup can break midway.
create table shop.bulk as select n, md5(n::text) || md5((n + 1)::text) as word, repeat(md5(n::text), 4) as pad
from generate_series(1, 60000) n;
