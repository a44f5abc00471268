// MQTT.js under remote control: one JSON command a line on stdin, one JSON answer or event a line on stdout.
//
//   {"id": 1, "op": "connect", "client": "a", "options": {...}}     {"id": 1, "result": {...}} or {"id": 1, "error": ...}
//   operations: connect, subscribe, unsubscribe, publish, end, die
//   {"client": "a", "event": "message" | "close" | "disconnect", ...}
//
// Payloads and correlation data are text, as in the tests; the process ends with stdin.
'use strict'

const readline = require('readline')
const mqtt = require('mqtt')

const clients = new Map()
const acknowledgements = new Map() // the last PUBACK or PUBREC by client: publish's callback does not give it

function print(value) {
  process.stdout.write(JSON.stringify(value) + '\n')
}

function fromJson(properties) {
  if (properties && properties.correlationData !== undefined) {
    return { ...properties, correlationData: Buffer.from(properties.correlationData) }
  }
  return properties
}

function toJson(properties) {
  if (!properties) return {}
  const plain = { ...properties }
  if (plain.correlationData) plain.correlationData = plain.correlationData.toString()
  return plain
}

function watch(name, client) {
  client.on('message', (topic, payload, packet) => {
    const { qos, retain, dup } = packet
    print({ client: name, event: 'message', topic, payload: payload.toString(), qos, retain, dup, properties: toJson(packet.properties) })
  })
  client.on('packetreceive', (packet) => {
    if (packet.cmd === 'puback' || packet.cmd === 'pubrec') acknowledgements.set(name, packet)
  })
  client.on('disconnect', (packet) => print({ client: name, event: 'disconnect', code: packet.reasonCode }))
  client.on('close', () => print({ client: name, event: 'close' }))
}

function connect({ client: name, port, options }) {
  return new Promise((resolve, reject) => {
    const will = options.will && { ...options.will, properties: fromJson(options.will.properties) }
    const client = mqtt.connect({ host: '127.0.0.1', port, reconnectPeriod: 0, ...options, ...(will ? { will } : {}) })
    clients.set(name, client)
    watch(name, client)
    client.once('connect', (packet) =>
      resolve({ sessionPresent: packet.sessionPresent, properties: toJson(packet.properties), clientId: client.options.clientId })
    )
    client.once('error', reject)
    client.once('close', () => reject(new Error('closed')))
  })
}

const operations = {
  connect,

  subscribe({ client, topic, options }) {
    return new Promise((resolve, reject) => {
      clients.get(client).subscribe(topic, options || {}, (error, granted, packet) => {
        if (packet && packet.granted) resolve({ codes: packet.granted })
        else if (error) reject(error)
        else resolve({ codes: granted.map((one) => one.qos) })
      })
    })
  },

  unsubscribe({ client, topic }) {
    return new Promise((resolve, reject) => {
      clients.get(client).unsubscribe(topic, (error, packet) => (error ? reject(error) : resolve({ codes: (packet && packet.granted) || [] })))
    })
  },

  publish({ client, topic, payload, options }) {
    const settings = { ...options, properties: fromJson(options && options.properties) }
    if (!settings.properties) delete settings.properties
    acknowledgements.delete(client)
    return new Promise((resolve, reject) => {
      clients.get(client).publish(topic, payload, settings, (error) => {
        const packet = acknowledgements.get(client) || {}
        if (error) reject(error)
        else resolve({ code: packet.reasonCode || 0, properties: toJson(packet.properties) })
      })
    })
  },

  end({ client, options }) {
    return new Promise((resolve) => clients.get(client).end(!clients.get(client).connected, options || {}, () => resolve({})))
  },

  async die({ client }) {
    clients.get(client).stream.destroy()
    return {}
  }
}

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  const { id, op, ...rest } = JSON.parse(line)
  try {
    print({ id, result: await operations[op](rest) })
  } catch (error) {
    print({ id, error: { message: String(error.message), code: error.code === undefined ? null : error.code } })
  }
}).on('close', () => process.exit(0))
