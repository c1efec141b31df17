'use strict';
// Shows what the admin API says. All that is shown is set as text: URLs and
// names come from peers.

const period = 2000; // ms between two looks
const most = 200; // rows of a table

const byId = id => document.getElementById(id);

function element(tag, text, cls) {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  if (cls) e.className = cls;
  return e;
}

function bytes(n) {
  if (n === undefined || n === null || n < 0) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i++; }
  return (i === 0 ? n : n.toFixed(n < 10 ? 2 : 1)) + ' ' + units[i];
}

const short = id => id ? '…' + id.slice(-8) : '–';
const shorts = ids => (ids || []).map(short).join(' ') || '–';

// ask returns what a page of the API says, null where there is no such page.
async function ask(path, read) {
  const answer = await fetch(path, { cache: 'no-store', signal: AbortSignal.timeout(10000) });
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return read(answer);
}
const json = path => ask(path, a => a.json());
const text = path => ask(path, a => a.text());

// table fills a table and shows its section if there are rows. A column is a
// title and what makes a cell of a row: a text, or an element.
function table(id, rows, columns) {
  const section = byId(id + '-section');
  section.hidden = !rows || rows.length === 0;
  if (section.hidden) return;
  const head = element('tr');
  for (const [title, , cls] of columns) head.append(element('th', title, cls === 'number' ? cls : undefined));
  const lines = rows.slice(0, most).map(row => {
    const line = element('tr');
    for (const [, cell, cls, title] of columns) {
      const value = cell(row);
      const td = value instanceof Node ? element('td') : element('td', value, cls);
      if (value instanceof Node) td.append(value);
      if (title) td.title = title(row);
      line.append(td);
    }
    return line;
  });
  if (rows.length > most) {
    const line = element('tr'), td = element('td', `and ${rows.length - most} more`, 'note');
    td.colSpan = columns.length;
    line.append(td);
    lines.push(line);
  }
  byId(id).replaceChildren(head, ...lines);
}

function tiles(status) {
  const out = [];
  const tile = (value, what) => {
    const t = element('div', undefined, 'tile');
    t.append(element('b', value), element('span', what));
    out.push(t);
  };
  if (status.store) {
    tile(bytes(status.store.used_bytes), `held of ${bytes(status.store.capacity_bytes)}`);
    tile(String(status.store.files), status.store.files === 1 ? 'file' : 'files');
    tile(String(status.store.fills), 'fills that run');
  }
  if (status.connected_peers !== undefined) tile(String(status.connected_peers), 'peers connected');
  if (status.pool) tile(String(status.pool.length), 'may be elected to seed');
  if (status.supernodes) {
    const up = status.supernodes.filter(s => s.connected).length;
    tile(`${up} of ${status.supernodes.length}`, 'supernodes reached');
  }
  if (status.network) tile(status.network.reachability, 'reachability');
  if (status.membership) tile(status.membership.closed ? (status.membership.role || 'member') : 'none', 'swarm membership');
  const own = status.supernode || (status.members ? status : null);
  if (own) tile(String(own.members.filter(m => m.state === 'live').length), 'members alive, here as supernode');
  byId('tiles').replaceChildren(...out);
}

// counters reads the sums of metrics by name from the text format.
function counters(metrics) {
  const sums = {};
  for (const line of (metrics || '').split('\n')) {
    const m = /^([a-zA-Z_:][\w:]*)(?:\{.*\})? (\S+)/.exec(line);
    if (m) sums[m[1]] = (sums[m[1]] || 0) + Number(m[2]);
  }
  return sums;
}

function traffic(metrics) {
  const c = counters(metrics);
  const parts = [
    ['local', 'delivered from the store', c.p2pnode_store_read_bytes_total, 'var(--local)'],
    ['peer', 'from peers', c.p2pnode_rangeread_client_verified_bytes_total, 'var(--peer)'],
    ['origin', 'from origins', c.p2pnode_origin_body_bytes_total, 'var(--origin)'],
  ].filter(p => p[2] !== undefined);
  const sum = parts.reduce((n, p) => n + p[2], 0);
  byId('traffic-section').hidden = sum === 0;
  byId('traffic').replaceChildren(...parts.map(([cls, , n]) => {
    const bar = element('div', undefined, cls);
    bar.style.flexGrow = n;
    return bar;
  }));
  byId('legend').replaceChildren(...parts.map(([, what, n, color]) => {
    const item = element('span', `${what} ${bytes(n)}`);
    item.style.setProperty('--color', color);
    return item;
  }));
}

function held(task) {
  const m = element('meter');
  m.max = Math.max(task.size, 1);
  m.value = task.held;
  m.title = `${bytes(task.held)} of ${bytes(task.size)}`;
  return m;
}

const ms = n => n ? n.toFixed(1) + ' ms' : '–';

async function look() {
  const [status, tasks, peers, metrics] = await Promise.all([json('/v1/status'), json('/v1/tasks'), json('/v1/peers'), text('/metrics')]);
  byId('peer').textContent = status.peer;
  byId('version').textContent = [status.version, status.site && `site ${status.site}`].filter(Boolean).join(' · ');
  tiles(status);
  traffic(metrics);
  table('tasks', tasks, [
    ['URL', t => t.url, 'url', t => t.task], ['Size', t => bytes(t.size), 'number'], ['Held', held],
    ['Pinned', t => t.pinned ? bytes(t.pinned) : '–', 'number'], ['Role', t => t.role],
    ['Seeds', t => shorts(t.seeds), 'id', t => (t.seeds || []).join('\n')],
  ]);
  table('peers', peers, [
    ['Peer', p => p.peer, 'id'], ['Role', p => p.role || '–'], ['Site', p => p.site || '–'],
    ['Connected', p => p.how ? `${p.how}, ${p.transport}` : 'no', undefined, p => p.addr || ''],
    ['Breaker', p => p.breaker || '–', undefined], ['First byte', p => ms(p.first_byte_ms), 'number'],
  ]);
  const own = status.supernode || (status.members ? status : {});
  table('members', own.members, [
    ['Peer', m => m.peer, 'id'], ['State', m => m.order ? `${m.state}, ${m.order}` : m.state], ['Site', m => m.site || '–'],
    ['Seed', m => m.seed ? 'yes' : 'no'], ['Weight', m => m.weight.toFixed(2), 'number'],
    ['Duty', m => bytes(m.duty), 'number'], ['Capacity', m => bytes(m.capacity), 'number'],
    ['Sends', m => `${bytes(m.upload_rate)}/s`, 'number'], ['Gets', m => `${bytes(m.download_rate)}/s`, 'number'],
    ['Heard', m => (m.age_ms / 1000).toFixed(1) + ' s ago', 'number'], ['Version', m => m.version || '–'],
  ]);
  table('assigned', own.tasks, [
    ['URL', t => t.url, 'url', t => t.id], ['Size', t => bytes(t.size), 'number'], ['Seeds', t => shorts(t.seeds), 'id', t => (t.seeds || []).join('\n')],
    ['Replicas', t => String(t.replicas), 'number'], ['Holders', t => String(t.holders), 'number'], ['Readers', t => String(t.readers), 'number'],
  ]);
  const ready = status.ready !== false;
  byId('state').textContent = ready ? 'ready' : 'not ready';
  byId('state').className = ready ? 'good' : 'bad';
}

async function run() {
  for (;;) {
    try {
      await look();
    } catch (err) {
      byId('state').textContent = `no answer: ${err.message}`;
      byId('state').className = 'bad';
    }
    await new Promise(done => setTimeout(done, document.hidden ? 5 * period : period));
  }
}
run();
