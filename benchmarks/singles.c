/* The load of messages that come one at a time, and of clients that connect: MQTT 3.1.1, one thread, epoll.
 *
 * Where nothing can be done in bulk a generator in Python is as busy as the broker it measures, and hides what that can
 * do. load.py has the words: subscribers are s00000, s00001..., publishers p00000...; publisher i sends to subscriber i
 * modulo their number. Topics are printf formats of a subscriber's number. One line of JSON is printed, as load.py does.
 *
 *   pairs    each publisher has one message in flight, and sends the next when its subscriber has it
 *   rate     so many messages a second, whatever comes back; the payload begins with the time of sending
 *   connect  so many connections with one subscription each, at most IN_FLIGHT of them under way
 *
 * Frames here are small and few in each socket, so that a socket that takes no more is waited for.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const uint64_t SECOND = 1000000000;
enum { PAYLOAD_MAX = 4096, PACKET_MAX = PAYLOAD_MAX + 512, EVENTS = 512, TEXT_MAX = 100, WARM_CONNECTIONS = 50 };
enum Role { PUBLISHER, SUBSCRIBER, HOLDER };
enum State { CONNECTING, CONNECT_SENT, SUBSCRIBE_SENT, READY };

typedef struct Client {
  int fd, number;
  enum Role role;
  enum State state;
  uint16_t packet_id;
  struct Client *pair;
  size_t partial_size; /* bytes of an unfinished packet */
  uint8_t *partial;
} Client;

static struct {
  const char *mode, *topic, *filter;
  int port, pid, publishers, subscribers, qos, size, rate, connections, in_flight;
  double warm, time;
} spec = {.mode = "pairs", .topic = "t/%05d", .size = 64, .in_flight = 100, .warm = 0.5, .time = 3};

static int epoll_fd, ready_count, is_paired, is_stamped;
static uint64_t sent, acked, delivered, idle_ns;
static uint64_t *latencies;
static size_t latency_count, latency_room;

static void fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  printf("{\"error\": \"");
  vprintf(format, arguments);
  printf("\"}\n");
  exit(1);
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * SECOND + t.tv_nsec;
}

/* --- frames ------------------------------------------------------------------------------------------------------ */

static size_t put_length(uint8_t *out, size_t value) {
  size_t n = 0;
  do {
    out[n] = value & 127;
    value >>= 7;
    if (value) out[n] |= 128;
    n++;
  } while (value);
  return n;
}

static size_t put_string(uint8_t *out, const char *text, size_t size) {
  out[0] = size >> 8;
  out[1] = size;
  memcpy(out + 2, text, size);
  return size + 2;
}

static void send_all(Client *c, const uint8_t *data, size_t size) {
  while (size) {
    ssize_t taken = send(c->fd, data, size, MSG_NOSIGNAL);
    if (taken < 0) {
      struct pollfd wait = {.fd = c->fd, .events = POLLOUT};
      if (errno != EAGAIN) fail("send: %s", strerror(errno));
      if (poll(&wait, 1, 10000) != 1) fail("a socket takes nothing for 10 s");
      continue;
    }
    data += taken;
    size -= taken;
  }
}

static void send_packet(Client *c, uint8_t first, const uint8_t *body, size_t size) {
  uint8_t packet[PACKET_MAX + 8];
  packet[0] = first;
  size_t head = 1 + put_length(packet + 1, size);
  memcpy(packet + head, body, size);
  send_all(c, packet, head + size);
}

static void send_connect(Client *c) {
  char name[32];
  int size = snprintf(name, sizeof name, "%c%05d", "psc"[c->role], c->number);
  uint8_t body[64] = {0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0};
  send_packet(c, 0x10, body, 10 + put_string(body + 10, name, size));
  c->state = CONNECT_SENT;
}

static void send_subscribe(Client *c) {
  char filter[TEXT_MAX + 32];
  int size = snprintf(filter, sizeof filter, spec.filter, c->number);
  uint8_t body[TEXT_MAX + 64] = {0, 1};
  size_t end = 2 + put_string(body + 2, filter, size);
  body[end++] = spec.qos;
  send_packet(c, 0x82, body, end);
  c->state = SUBSCRIBE_SENT;
}

static void publish(Client *c) {
  char topic[TEXT_MAX + 32];
  int length = snprintf(topic, sizeof topic, spec.topic, c->number % spec.subscribers);
  uint8_t body[PACKET_MAX];
  size_t end = put_string(body, topic, length);
  if (spec.qos) {
    if (!++c->packet_id) c->packet_id = 1;
    body[end++] = c->packet_id >> 8;
    body[end++] = c->packet_id;
  }
  memset(body + end, 'x', spec.size);
  if (is_stamped) {
    uint64_t now = now_ns();
    memcpy(body + end, &now, sizeof now);
  }
  sent++;
  send_packet(c, 0x30 | spec.qos << 1, body, end + spec.size);
}

/* --- what comes -------------------------------------------------------------------------------------------------- */

static void note_latency(const uint8_t *payload) {
  uint64_t then;
  memcpy(&then, payload, sizeof then);
  if (latency_count == latency_room) {
    latency_room = latency_room ? latency_room * 2 : 1 << 16;
    latencies = realloc(latencies, latency_room * sizeof *latencies);
    if (!latencies) fail("out of memory");
  }
  latencies[latency_count++] = now_ns() - then;
}

static void be_ready(Client *c) {
  c->state = READY;
  ready_count++;
}

static void on_publish(Client *c, uint8_t first, const uint8_t *body, size_t size) {
  size_t id_at = 2 + (body[0] << 8 | body[1]), at = first & 6 ? id_at + 2 : id_at;
  if (size - at != (size_t)spec.size) fail("a payload of %zu bytes", size - at);
  if (is_stamped) note_latency(body + at);
  if (first & 6) send_packet(c, 0x40, body + id_at, 2);
  delivered++;
  if (is_paired) publish(c->pair);
}

static void on_packet(Client *c, uint8_t first, const uint8_t *body, size_t size) {
  switch (first >> 4) {
  case 2:
    if (c->state != CONNECT_SENT || size != 2 || body[1]) fail("a CONNECT was refused");
    if (c->role != PUBLISHER && spec.filter) send_subscribe(c);
    else be_ready(c);
    break;
  case 3: on_publish(c, first, body, size); break;
  case 4: acked++; break;
  case 9:
    if (c->state != SUBSCRIBE_SENT || size != 3 || body[2] > 2) fail("a SUBSCRIBE was refused");
    be_ready(c);
    break;
  default: fail("a packet of type 0x%02x", first);
  }
}

/* Acts on whole packets; gives how many bytes they were. */
static size_t read_packets(Client *c, const uint8_t *data, size_t size) {
  size_t done = 0;
  while (size - done >= 2) {
    size_t length = 0, at = done + 1;
    int shift = 0, is_whole = 0;
    while (at < size && !is_whole) {
      length |= (size_t)(data[at] & 127) << shift;
      shift += 7;
      is_whole = !(data[at++] & 128);
    }
    if (!is_whole || size - at < length) break;
    on_packet(c, data[done], data + at, length);
    done = at + length;
  }
  return done;
}

static void on_readable(Client *c) {
  static uint8_t data[65536 + PACKET_MAX];
  if (c->partial_size) memcpy(data, c->partial, c->partial_size);
  ssize_t got = recv(c->fd, data + c->partial_size, 65536, 0);
  if (got < 0 && errno == EAGAIN) return;
  if (got <= 0) fail("the broker closed a connection");
  size_t size = c->partial_size + got, done = read_packets(c, data, size);
  c->partial_size = size - done;
  if (c->partial_size > PACKET_MAX) fail("a packet is too long");
  if (c->partial_size) {
    if (!c->partial && !(c->partial = malloc(PACKET_MAX))) fail("out of memory");
    memcpy(c->partial, data + done, c->partial_size);
  }
}

/* Never sleeps: a broker that had to wake us would be measured with that. Turns in which nothing came are counted as
 * idle, from one call to the next. */
static void handle_events(void) {
  static uint64_t turn_began;
  static int is_idle;
  struct epoll_event events[EVENTS];
  uint64_t now = now_ns();
  if (is_idle) idle_ns += now - turn_began;
  turn_began = now;
  int count = epoll_wait(epoll_fd, events, EVENTS, 0);
  is_idle = !count;
  for (int i = 0; i < count; i++) {
    Client *c = events[i].data.ptr;
    if (c->state == CONNECTING && events[i].events & EPOLLOUT) {
      struct epoll_event wanted = {EPOLLIN, {.ptr = c}};
      epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &wanted);
      send_connect(c);
    }
    if (events[i].events & ~EPOLLOUT) on_readable(c);
  }
}

/* --- connecting -------------------------------------------------------------------------------------------------- */

/* Never blocks: where the accept queue is full, only this connection waits for its SYN to be sent again. */
static void open_client(Client *c) {
  int one = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(spec.port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (c->fd < 0) fail("socket: %s", strerror(errno));
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (connect(c->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
    fail("connect: %s", strerror(errno));
  struct epoll_event wanted = {EPOLLIN | EPOLLOUT, {.ptr = c}};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &wanted);
}

static void open_clients(Client *clients, int count) {
  int opened = 0, base = ready_count;
  uint64_t last_ready = now_ns();
  while (ready_count - base < count) {
    int before = ready_count;
    for (int k = 0; k < 4 && opened < count && opened - (ready_count - base) < spec.in_flight; k++)
      open_client(&clients[opened++]);
    handle_events();
    if (ready_count != before) last_ready = now_ns();
    else if (now_ns() - last_ready > 20 * SECOND) fail("%d of %d clients are ready", ready_count - base, count);
  }
}

static Client *make_clients(int count, enum Role role, int first) {
  Client *clients = calloc(count ? count : 1, sizeof *clients);
  if (!clients) fail("out of memory");
  for (int i = 0; i < count; i++) clients[i] = (Client){.number = first + i, .role = role};
  return clients;
}

/* --- figures ----------------------------------------------------------------------------------------------------- */

static double broker_cpu(void) {
  char path[64], line[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", spec.pid);
  FILE *file = spec.pid ? fopen(path, "r") : NULL;
  unsigned long user = 0, system = 0;
  if (file && fgets(line, sizeof line, file))
    sscanf(strrchr(line, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
  if (file) fclose(file);
  return (double)(user + system) / sysconf(_SC_CLK_TCK);
}

static double broker_rss_kib(void) {
  char path[64];
  long pages = 0;
  snprintf(path, sizeof path, "/proc/%d/statm", spec.pid);
  FILE *file = spec.pid ? fopen(path, "r") : NULL;
  if (file && fscanf(file, "%*d %ld", &pages) != 1) pages = 0;
  if (file) fclose(file);
  return pages * (sysconf(_SC_PAGESIZE) / 1024.0);
}

static double own_cpu(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

typedef struct {
  uint64_t at, sent, acked, delivered, idle;
  double broker, own;
} Mark;

static Mark mark(void) { return (Mark){now_ns(), sent, acked, delivered, idle_ns, broker_cpu(), own_cpu()}; }

static int by_size(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

static double percentile_us(double share) {
  return latency_count ? latencies[(size_t)((latency_count - 1) * share)] / 1e3 : 0;
}

static void print_result(Mark from, Mark to, int64_t lost, double connects_per_s, double connection_kib) {
  double seconds = (to.at - from.at) / 1e9, busy = to.own - from.own - (to.idle - from.idle) / 1e9;
  if (latency_count) qsort(latencies, latency_count, sizeof *latencies, by_size);
  printf("{\"sent_per_s\": %.3f, \"acked_per_s\": %.3f, \"delivered_per_s\": %.3f, ", (to.sent - from.sent) / seconds,
         (to.acked - from.acked) / seconds, (to.delivered - from.delivered) / seconds);
  printf("\"broker_cpu\": %.4f, \"load_cpu\": %.4f, ", (to.broker - from.broker) / seconds, busy > 0 ? busy / seconds : 0);
  printf("\"p50_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, \"max_us\": %.2f, ", percentile_us(.5),
         percentile_us(.99), percentile_us(.999), percentile_us(1));
  printf("\"connects_per_s\": %.1f, \"connection_kib\": %.3f, ", connects_per_s, connection_kib);
  printf("\"broker_rss_kib\": %.0f, \"lost\": %lld}\n", broker_rss_kib(), (long long)lost);
}

/* --- modes ------------------------------------------------------------------------------------------------------- */

static void check_progress(uint64_t now) {
  static uint64_t last_count, last_time;
  if (delivered + acked != last_count || !last_time) last_count = delivered + acked, last_time = now;
  else if (now - last_time > 10 * SECOND) fail("nothing for 10 s: sent %llu, delivered %llu",
                                                  (unsigned long long)sent, (unsigned long long)delivered);
}

static int64_t drain(void) {
  is_paired = 0;
  uint64_t end = now_ns() + 5 * SECOND;
  while ((delivered < sent || (spec.qos && acked < sent)) && now_ns() < end) handle_events();
  return sent - delivered;
}

static void run_pairs(Client *publishers, Client *subscribers) {
  if (spec.publishers != spec.subscribers) fail("pairs want as many publishers as subscribers");
  for (int i = 0; i < spec.publishers; i++) subscribers[i].pair = &publishers[i];
  is_paired = 1;
  for (int i = 0; i < spec.publishers; i++) publish(&publishers[i]);
  uint64_t now = now_ns(), measure_at = now + spec.warm * 1e9, end = measure_at + spec.time * 1e9;
  Mark first = {0};
  for (; now < end; now = now_ns()) {
    if (!first.at && now >= measure_at) first = mark();
    handle_events();
    check_progress(now);
  }
  Mark last = mark();
  print_result(first, last, drain(), 0, 0);
}

static void keep_rate(Client *publishers, double seconds) {
  static int next;
  uint64_t start = now_ns(), base = sent, now = start, end = start + seconds * 1e9;
  while (now < end) {
    uint64_t due = base + (now - start) / 1e9 * spec.rate;
    for (; sent < due; next = (next + 1) % spec.publishers) publish(&publishers[next]);
    handle_events();
    now = now_ns();
    check_progress(now);
  }
}

static void run_rate(Client *publishers) {
  is_stamped = 1;
  keep_rate(publishers, spec.warm);
  latency_count = 0;
  Mark first = mark();
  keep_rate(publishers, spec.time);
  Mark last = mark();
  print_result(first, last, drain(), 0, 0);
}

static void run_connect(void) {
  open_clients(make_clients(WARM_CONNECTIONS, HOLDER, spec.connections), WARM_CONNECTIONS);
  double before = broker_rss_kib();
  Client *clients = make_clients(spec.connections, HOLDER, 0);
  Mark first = mark();
  open_clients(clients, spec.connections);
  Mark last = mark();
  for (uint64_t end = now_ns() + SECOND; now_ns() < end;) handle_events();
  double each = (broker_rss_kib() - before) / spec.connections;
  print_result(first, last, 0, spec.connections / ((last.at - first.at) / 1e9), each);
}

static void read_options(int argc, char **argv) {
  static struct option names[] = {
      {"mode", 1, 0, 'm'},  {"port", 1, 0, 'P'},     {"pid", 1, 0, 'b'},         {"publishers", 1, 0, 'p'},
      {"qos", 1, 0, 'q'},   {"topic", 1, 0, 'T'},    {"filter", 1, 0, 'F'},      {"subscribers", 1, 0, 's'},
      {"size", 1, 0, 'z'},  {"rate", 1, 0, 'r'},     {"connections", 1, 0, 'c'}, {"in-flight", 1, 0, 'i'},
      {"warm", 1, 0, 'w'},  {"time", 1, 0, 't'},     {0},
  };
  for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;) switch (name) {
    case 'm': spec.mode = optarg; break;
    case 'T': spec.topic = optarg; break;
    case 'F': spec.filter = optarg; break;
    case 'P': spec.port = atoi(optarg); break;
    case 'b': spec.pid = atoi(optarg); break;
    case 'p': spec.publishers = atoi(optarg); break;
    case 's': spec.subscribers = atoi(optarg); break;
    case 'q': spec.qos = atoi(optarg); break;
    case 'z': spec.size = atoi(optarg); break;
    case 'r': spec.rate = atoi(optarg); break;
    case 'c': spec.connections = atoi(optarg); break;
    case 'i': spec.in_flight = atoi(optarg); break;
    case 'w': spec.warm = atof(optarg); break;
    case 't': spec.time = atof(optarg); break;
    default: fail("an unknown option");
    }
  if (spec.size < 8 || spec.size > PAYLOAD_MAX) fail("payloads have 8 to %d bytes", PAYLOAD_MAX);
  if (spec.qos < 0 || spec.qos > 1) fail("QoS 0 or 1");
  if (strlen(spec.topic) > TEXT_MAX || (spec.filter && strlen(spec.filter) > TEXT_MAX))
    fail("topics and filters have at most %d bytes", TEXT_MAX);
}

int main(int argc, char **argv) {
  read_options(argc, argv);
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  epoll_fd = epoll_create1(0);
  if (!strcmp(spec.mode, "connect")) {
    run_connect();
    return 0;
  }
  Client *subscribers = make_clients(spec.subscribers, SUBSCRIBER, 0);
  Client *publishers = make_clients(spec.publishers, PUBLISHER, 0);
  open_clients(subscribers, spec.subscribers);
  open_clients(publishers, spec.publishers);
  if (!strcmp(spec.mode, "rate")) run_rate(publishers);
  else if (!strcmp(spec.mode, "pairs")) run_pairs(publishers, subscribers);
  else fail("an unknown mode");
  return 0;
}
