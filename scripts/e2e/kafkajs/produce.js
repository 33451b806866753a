// Sends a file's lines with KafkaJS: node produce.js --bootstrap A --topic T --input FILE [--codec none|gzip] [--idempotent] [--acks N]
'use strict'

const fs = require('node:fs')
const { parseArgs } = require('node:util')
const { CompressionTypes, Kafka, Partitioners, logLevel } = require('kafkajs')

const MESSAGES_PER_SEND = 500

const { values: options } = parseArgs({
  options: {
    bootstrap: { type: 'string' },
    topic: { type: 'string' },
    input: { type: 'string' },
    codec: { type: 'string', default: 'none' },
    idempotent: { type: 'boolean', default: false },
    acks: { type: 'string', default: '-1' },
  },
})

// KafkaJS has gzip on board, the others are plugins.
const codecs = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP }

// Lines as buffers: a line that is not UTF-8 must arrive as it is.
function* linesOf(path) {
  const data = fs.readFileSync(path)
  let start = 0
  for (let end; (end = data.indexOf(0x0a, start)) >= 0; start = end + 1) yield data.subarray(start, end)
  if (start < data.length) yield data.subarray(start)
}

async function main() {
  if (!(options.codec in codecs)) throw new Error(`--codec: ${options.codec}, must be none or gzip`)
  const kafka = new Kafka({ clientId: 'e2e-kafkajs', brokers: [options.bootstrap], logLevel: logLevel.WARN })
  const producer = kafka.producer({
    idempotent: options.idempotent,
    maxInFlightRequests: options.idempotent ? 1 : null, // KafkaJS keeps sequence order only so
    allowAutoTopicCreation: false,
    createPartitioner: Partitioners.DefaultPartitioner,
  })
  await producer.connect()
  try {
    let sent = 0
    let messages = []
    const send = async () => {
      await producer.send({ topic: options.topic, acks: Number(options.acks), compression: codecs[options.codec], messages })
      sent += messages.length
      messages = []
    }
    for (const value of linesOf(options.input)) {
      messages.push({ value })
      if (messages.length === MESSAGES_PER_SEND) await send()
    }
    if (messages.length > 0) await send()
    console.log(`records=${sent}`)
  } finally {
    await producer.disconnect()
  }
}

main().catch((error) => {
  console.error(error.stack)
  console.error(`kafkajs: ${error.message}`) // last: the reason that the result line gives
  process.exitCode = 1
})
