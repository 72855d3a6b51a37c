// What the app as a whole shares: the ten places for requests, foreground and background, time.

import { platform } from './platform'

/** WeChat's limit for request, upload and download together. */
const LIMIT = 10

type Job = (release: () => void) => void

let running = 0
let waiting: Job[] = []

function next(): void {
  while (running < LIMIT && waiting.length) {
    running++
    waiting.shift()!(() => {
      running--
      next()
    })
  }
}

/**
 * Runs the job when one of the ten places is free; it must release its place once. `first` goes ahead of all others.
 * Returns how to give up waiting.
 */
export function enqueue(job: Job, first?: boolean): () => void {
  if (first) waiting.unshift(job)
  else waiting.push(job)
  next()
  return () => {
    waiting = waiting.filter(each => each !== job)
  }
}

let hidden: boolean
let watching: boolean
let resume: Array<() => void> = []

/** Begins to notice when the app goes to the background. */
export function watch(): void {
  if (watching || !platform.onAppShow) return
  watching = true
  platform.onAppHide!(() => {
    hidden = true
  })
  platform.onAppShow(() => {
    hidden = false
    resume.splice(0).forEach(each => each())
  })
}

/** Waits until the app is in the foreground. */
export function foreground(): Promise<void> | false {
  return hidden && new Promise<void>(resolve => resume.push(resolve))
}

/** Waits so many seconds and up to a quarter more: those who were refused together do not return together. */
export function wait(seconds: number): Promise<void> {
  return new Promise<void>(resolve => {
    setTimeout(resolve, seconds * 1000 * (1 + Math.random() / 4))
  })
}
