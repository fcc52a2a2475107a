/**
 * The sender and the length of each waiting message, and their index: a full inbox evicts the messages of the sender
 * that has the most there (messages/eviction.ts).
 */
export const inboxSenders = `
alter table inbox add column sender_num integer not null default 0;
alter table inbox add column length integer not null default 0;
update inbox set length = length(event),
  sender_num = coalesce((select user_num from users where user_id = event ->> '$.sender'), 0);
create index inbox_by_sender on inbox (device_num, sender_num, pos, length);
`
