"""The names that nDPI 5.0.0 gives, as NFStream 6.6 ships it.

Listed in nDPI's own numbering from its `ndpi_get_proto_name` and `ndpi_category_get_name`;
tests/features/test_flow_schema.py compares them with the library. A name that a later nDPI
adds is outside the vocabulary (code -1) until it is added here, which changes the digests of
the schemas that use it.
"""

from __future__ import annotations

APPLICATIONS: tuple[str, ...] = tuple(
    (
        "Unknown FTP_CONTROL POP3 SMTP IMAP DNS IPP HTTP MDNS NTP NetBIOS NFS SSDP BGP SNMP "
        "XDMCP SMBv1 Syslog DHCP PostgreSQL MySQL Outlook VK POPS Tailscale Yandex ntop COAP "
        "VMware SMTPS DTLS UBNTAC2 BFCP YandexMail YandexMusic Gnutella eDonkey BitTorrent "
        "TeamsCall Signal Memcached SMBv23 Mining NestLogSink Modbus WhatsAppCall DataSaver "
        "Xbox QQ TikTok RTSP IMAPS IceCast CPHA iQIYI Zattoo YandexMarket YandexDisk Discord "
        "AdobeConnect MongoDB Pluralsight YandexCloud OCSP VXLAN IRC MerakiCloud Jabber Nats "
        "AmongUs Yahoo DisneyPlus HART-IP VRRP Steam MELSEC WorldOfWarcraft Telnet STUN IPSec "
        "GRE ICMP IGMP EGP SCTP IP_OSPF IP_in_IP RTP RDP VNC Tumblr TLS SSH Usenet MGCP IAX "
        "TFTP AFP YandexMetrika YandexDirect SIP TruPhone ICMPV6 DHCPV6 Armagetron Crossfire "
        "Dofus Blacknut Boosteroid GuildWars2 AmazonAlexa Kerberos LDAP Nexon MsSQL-TDS PPTP AH "
        "ESP Slack Facebook Twitter Dropbox GMail GoogleMaps YouTube Mozilla Google MS-RPCH "
        "NetFlow sFlow HTTP_Connect HTTP_Proxy Citrix NetFlix LastFM Waze YouTubeUpload Hulu "
        "CHECKMK AJP Apple Webex WhatsApp AppleiCloud Viber AppleiTunes Radius WindowsUpdate "
        "TeamViewer EthernetGlobalData HCL_Notes SAP GTP WSD LLMNR TocaBoca Spotify "
        "FacebookMessenger H323 OpenVPN NOE CiscoVPN TeamSpeak Tor CiscoSkinny RTCP RSYNC "
        "Oracle Corba Canonical Whois-DAS SD-RTN SOCKS Nintendo RTMP FTP_DATA Wikipedia ZeroMQ "
        "Amazon eBay CNN Megaco RESP Pinterest OSPF Telegram CoD_Mobile Pandora QUIC Zoom EAQ "
        "Ookla AMQP KakaoTalk KakaoTalk_Voice Twitch DoH_DoT WeChat MPEG_TS Snapchat Sina "
        "GoogleMeet IFLIX Github BJNP Reddit WireGuard SMPP DNScrypt TINC Deezer Instagram "
        "Microsoft Blizzard Teredo HotspotShield IMO GoogleDrive OCS Microsoft365 Cloudflare "
        "MS_OneDrive MQTT RX AppleStore OpenDNS Git DRDA PlayStore SOMEIP FIX Playstation "
        "Pastebin LinkedIn SoundCloud SteamDatagramRelay LISP Diameter ApplePush GoogleServices "
        "AmazonVideo GoogleDocs WhatsAppFiles TargusDataspeed DNP3 IEC60870 Bloomberg CAPWAP "
        "Zabbix S7Comm Teams WebSocket AnyDesk SOAP AppleSiri SnapchatCall HP_VIRTGRP "
        "GenshinImpact Activision FortiClient Z3950 Likee GitLab AVASTSecureDNS Cassandra "
        "AmazonAWS Salesforce Vimeo FacebookVoip SignalVoip Fuze GTP_U GTP_C GTP_PRIME Alibaba "
        "Crashlytics Azure iCloudPrivateRelay EthernetIP Badoo AccuWeather GoogleClassroom HSRP "
        "Cybersec GoogleCloud Tencent RakNet Xiaomi Edgecast Cachefly Softether MpegDash Dazn "
        "GoTo RSH 1kxun PGM IP_PIM collectd TunnelBear CloudflareWarp i3D RiotGames Psiphon "
        "UltraSurf Threema AliCloud AVAST TiVoConnect Kismet FastCGI FTPS NAT-PMP Syncthing "
        "CryNetwork Line LineCall AppleTVPlus DirecTV HBO Vudu Showtime Dailymotion Livestream "
        "Tencentvideo IHeartRadio Tidal TuneIn SiriusXMRadio Munin Elasticsearch TuyaLP "
        "TPLINK_SHP Source_Engine BACnet OICQ Heroes_of_the_Storm FbookReelStory SRTP OperaVPN "
        "EpicGames GeForceNow Nvidia BITCOIN ProtonVPN Thrift Roblox Service_Location_Protocol "
        "Mullvad HTTP2 HAProxy RMCP Controller_Area_Network Protobuf ETHEREUM TelegramVoip "
        "SinaWeibo TeslaServices PTPv2 RTPS OPC-UA S7CommPlus FINS EtherSIO UMAS BeckhoffADS "
        "ISO9506-1-MMS IEEE-C37118 Ether-S-Bus Monero DCERPC PROFINET_IO HiSLIP UFTP OpenFlow "
        "JSON-RPC WebDAV Kafka NoMachine IEC62056 HL7 Ceph GoogleChat Roughtime "
        "PrivateInternetAccess KCP Dota2 Mumble Yojimbo ElectronicArts STOMP Radmin Raft CIP "
        "Gearman TencentGames GaijinEntertainment ANSI_C1222 Huawei HuaweiCloud DLEP BFD "
        "NetEaseGames PathofExile GoogleCall PFCP FLUTE LoLWildRift TES_Online LDP KNXnet_IP "
        "Bluesky Mastodon Threads ViberVoip ZUG JRMI RipeAtlas HLS ClickHouse Nano OpenWire "
        "CNP-IP ATG TRDP Lustre NordVPN SurfShark CactusVPN Windscribe Sonos DingTalk Paltalk "
        "Naver Shein Temu Taobao Mikrotik DICOM ParamountPlus YandexAlice Vivox DigitalOcean "
        "RUTUBE LagoFast GearUP_Booster Rumble Ubiquity MSDO RockstarGames Kick Hamachi GLBP "
        "EasyWeather Mudfish TriStation SamsungSDP Matter AWS_Cognito AWS_API_Gateway "
        "AWS_Kinesis AWS_EC2 AWS_EMR AWS_S3 AWS_Cloudfront AWS_DynamoDB Espn Akamai"
    ).split()
)
"""Protocols and applications, which nDPI joins by a dot: `TLS.Google`."""

CATEGORIES: tuple[str, ...] = tuple(
    (
        "Unspecified Media VPN Email DataTransfer Web SocialNetwork Download Game Chat VoIP "
        "Database RemoteAccess Cloud Network Collaborative RPC Streaming System SoftwareUpdate "
        "Music Video Shopping Productivity FileSharing ConnCheck IoT-Scada VirtAssistant "
        "Cybersecurity AdultContent Mining Malware Advertisement Banned_Site Site_Unavailable "
        "Allowed_Site Antimalware Crypto_Currency Gambling Health ArtifIntelligence Finance "
        "News Sport Business Internet Blockchain_Crypto Blog_Forum Government Education "
        "CDN_Proxy Hw_Sw Dating Travel Food Bots Scanners Hosting Art Fashion Books Science "
        "Maps_Navigation Login_Portal Legal Environmental_Services Culture Housing "
        "Telecommunication Transportation Design Employment Events Weather Lifestyle "
        "Real_Estate Security Environment Hobby Computer_Science Construction Engineering "
        "Religion Entertainment Agriculture Technology Beauty History Politics Vehicles"
    ).split()
)
"""Categories of applications; the five that users may define have no meaning of their own."""
