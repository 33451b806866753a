// Reads as a member of the group that goes by the topic's name: node member.js --bootstrap A --topic T
// It prints "PARTITION OFFSET VALUE" until it is asked to end, and then leaves the group with all that committed.
'use strict'

const fs = require('node:fs')
const { parseArgs } = require('node:util')
const { Kafka, logLevel } = require('kafkajs')

const { values: options } = parseArgs({ options: { bootstrap: { type: 'string' }, topic: { type: 'string' } } })

async function main() {
  const kafka = new Kafka({ clientId: 'e2e-kafkajs', brokers: [options.bootstrap], logLevel: logLevel.WARN })
  const consumer = kafka.consumer({ groupId: options.topic, sessionTimeout: 3000, heartbeatInterval: 500, rebalanceTimeout: 5000, maxWaitTimeInMs: 250 })
  await consumer.connect()
  await consumer.subscribe({ topics: [options.topic], fromBeginning: true })
  process.once('SIGTERM', () => consumer.disconnect().then(() => process.exit(0)))
  await consumer.run({
    eachMessage: async ({ partition, message }) => {
      const line = Buffer.concat([Buffer.from(`${partition} ${message.offset} `), message.value, Buffer.from('\n')])
      fs.writeSync(1, line) // at once: the process may be killed at any time
    },
  })
}

main().catch((err) => {
  console.error(err)
  process.exit(1)
})
